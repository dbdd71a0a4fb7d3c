"""NewsSession: users come to read the news, and come back the sooner the better it was."""

from actors.envs.news_session.environment import NewsSessionEnv, NewsSessionVectorEnv
from actors.envs.news_session.model import NewsSessionModel
from actors.envs.news_session.simulation import NewsSession

__all__ = ["NewsSession", "NewsSessionEnv", "NewsSessionModel", "NewsSessionVectorEnv"]
