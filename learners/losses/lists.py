"""Action values of items that are shown as a list: what a list led to is learnt by each of its items.

The value of an item is the return of a list that shows it. As in deep reinforcement learning for news (Zheng et al.
2018) items are valued one by one and the best K are shown; beyond the list itself nothing is assumed of what users do
with it, so several clicks on one list are as good as one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learners.losses.shapes import check_shapes
from learners.networks.q_network import ReturnModel


def best_items(q: Tensor, slots: int) -> Tensor:
    """The K items of largest value, largest first, float[B, A] -> int64[B, K].

    Where fewer than K are above -inf the first stands in for those that are missing: they are not chosen from.
    """
    if slots == 1:
        return q.argmax(dim=1, keepdim=True)
    values, items = q.topk(slots, dim=1)
    return torch.where(torch.isneginf(values), items[:, :1], items)


def list_losses(
    returns: ReturnModel,
    outputs_tm1: Tensor,
    list_tm1: Tensor,
    r_t: Tensor,
    discount_t: Tensor,
    outputs_t: Tensor,
    q_t_selector: Tensor,
) -> tuple[Tensor, Tensor]:
    """How far the values of a list's items are from what the list led to.

    Each item of the list learns from each item of the successor's best list, K x K pairs: the mean over the successor's
    items is what that list is worth, of expected returns as of their distributions. Were each place to learn from the
    same place alone, the top would rise above the rest merely by being the top.

    Args:
        returns: what outputs mean.
        outputs_tm1: float[B, A, Z] where the list was shown.
        list_tm1: int64[B, K], the items shown.
        r_t: float[B], (n-step) reward.
        discount_t: float[B], discount x (1 - terminated).
        outputs_t: float[B, A, Z], target network's at the successor.
        q_t_selector: float[B, A], values whose K largest are the successor's list; -inf where it is not allowed.

    Returns:
        Losses and errors float[B], means over the pairs; see ReturnModel.loss.
    """
    batch, slots = list_tm1.shape
    check_shapes(r_t=(r_t, (batch,)), discount_t=(discount_t, (batch,)))
    size = outputs_tm1.shape[2]
    list_t = best_items(q_t_selector, slots)
    shown = outputs_tm1.gather(1, list_tm1.unsqueeze(2).expand(-1, -1, size))
    following = outputs_t.gather(1, list_t.unsqueeze(2).expand(-1, -1, size))
    pairs = slots * slots
    outputs = shown.repeat_interleave(slots, dim=1).reshape(batch * pairs, 1, size)
    targets = following.repeat(1, slots, 1).reshape(batch * pairs, 1, size)
    only = torch.zeros(batch * pairs, dtype=torch.int64, device=list_tm1.device)
    r, discount = r_t.repeat_interleave(pairs), discount_t.repeat_interleave(pairs)
    losses, errors = returns.loss(outputs, only, r, discount, targets, targets.new_zeros(batch * pairs, 1))
    return losses.view(batch, pairs).mean(dim=1), errors.view(batch, pairs).mean(dim=1)
