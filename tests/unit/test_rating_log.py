"""Logs of ratings in every form that is read, and what is said of bad ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from actors.envs.log_users import RatingLog, read_log
from replay_server.errors import ConfigError

FORMS = {
    "header": "user,item,rating,time\na,x,4,10\nb,x,3.5,11\na,y,1,9\n",
    "ml-latest": "userId,movieId,rating,timestamp\na,x,4,10\nb,x,3.5,11\na,y,1,9\n",
    "ml-100k": "a\tx\t4\t10\nb\tx\t3.5\t11\na\ty\t1\t9\n",
    "ml-1m": "a::x::4::10\nb::x::3.5::11\na::y::1::9\n",
    "other order": "ts,item,pos,rating,user\n10,x,0,4,a\n11,x,0,3.5,b\n9,y,1,1,a\n",
    "recbole": "user_id:token\titem_id:token\trating:float\ttimestamp:float\na\tx\t4\t10\nb\tx\t3.5\t11\na\ty\t1\t9\n",
    "quoted": '"User-ID";"ISBN";"Book-Rating";"date"\n"a";"x";"4";"10"\n"b";"x";"3.5";"11"\n"a";"y";"1";"9"\n',
    "dates": "user,item,rating,time\na,x,4,2004-01-26 03:58:10\nb,x,3.5,2004-01-27\na,y,1,2004-01-26T03:58:09Z\n",
    "windows": "\ufeffuser,item,rating,time\r\na,x,4,10\r\nb,x,3.5,11\r\n\r\na,y,1,9\r\n",
    "no times": "a::y::1\nb::x::3.5\na::x::4\n",
}


def rows(log: RatingLog) -> list[tuple[str, str, float]]:
    return [
        (str(log.user_names[user]), str(log.item_names[item]), float(rating))
        for user, item, rating in zip(log.user, log.item, log.rating, strict=True)
    ]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_by_user_and_time(form: str, tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text(FORMS[form], encoding="utf-8", newline="")
    log = read_log(path)
    assert sorted(rows(log)) == [("a", "x", 4.0), ("a", "y", 1.0), ("b", "x", 3.5)]
    of_a = [item for user, item, _ in rows(log) if user == "a"]
    assert of_a == ["y", "x"]  # in the order of time, not of the file
    assert (np.diff(log.user) >= 0).all()


def test_compressed_logs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv.gz"
    path.write_bytes(gzip.compress(FORMS["header"].encode()))
    assert len(rows(read_log(path))) == 3


def test_the_latest_of_several_ratings_counts_and_equal_times_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,rating,time\na,z,1,5\na,x,2,5\na,y,3,5\na,z,4,7\na,x,5,1\n")
    assert rows(read_log(path)) == [("a", "x", 2.0), ("a", "y", 3.0), ("a", "z", 4.0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the first line is empty"),
        ("abc\n", "line 1: 'abc' is one field; give user,item,rating,time with"),
        ("a,b,c,d\n", "line 1: 'a,b,c,d' is neither a header that names user,item,rating,time nor a rating"),
        ("user,rating,time\na,4,1\n", "names no item; call the columns user,item,rating,time"),
        ("user,item,rating,time\n", "has a header and no ratings"),
        ("user,item,rating,time\na,x,4,1\na,y,good,2\n", "line 3: the rating 'good' is not a number; correct the line"),
        ("user,item,rating,time\na,x,nan,1\n", "line 2: the rating 'nan' is not a number"),
        ("a::x::4::1\na::y::4::yesterday\n", "line 2: the time 'yesterday' is neither a number nor a date"),
        ("a\tx\t4\t1\n\nb\tx\n", "line 3: 2 field(s) between '\\t', the first line has at least 4"),
        ("user,item,rating,time\n,x,4,1\n", "line 2: the user or the item is empty"),
    ],
)
def test_bad_logs_are_refused_in_one_line_with_the_place(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_log(path)
    assert said in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read .No such file"):
        read_log(tmp_path / "nothing.csv")
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"user,item,rating,time\na,caf\xe9,4,1\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text; convert it"):
        read_log(latin)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(FORMS["header"].encode())[:-12])
    with pytest.raises(ConfigError, match="is no whole gzip file"):
        read_log(cut)
    named = tmp_path / "plain.csv.gz"
    named.write_text(FORMS["header"])
    with pytest.raises(ConfigError, match="is no whole gzip file"):
        read_log(named)
