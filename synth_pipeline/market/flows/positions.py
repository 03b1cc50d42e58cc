"""Where in their queues cancelled orders stood, of sources that show ids."""

import numpy as np

from synth_pipeline.market.compiling import njit
from synth_pipeline.series import FloatArray, IntArray
from synth_pipeline.ticks.messages import CANCEL, LIMIT, SHOWN, Messages


def positions_of(messages: Messages) -> FloatArray:
    """Return the share of the queue's lots ahead of the middle of each cancelled order, among at least two orders."""
    if not (messages.order_id > 0).any():
        return np.zeros(0)
    order = np.lexsort((np.arange(len(messages)), messages.price, messages.side, messages.stretch))
    new = (np.diff(np.stack((messages.price, messages.side, messages.stretch))[:, order]) != 0).any(axis=0)
    columns = (messages.kind[order], messages.order_id[order], messages.size[order])
    found = _walk(*columns, np.append(True, new), np.zeros((len(messages) + 1, 2), dtype=np.int64))
    return np.asarray(found[~np.isnan(found)])


@njit(cache=True)
def _walk(kind: IntArray, order_id: IntArray, size: IntArray, new: np.ndarray, queue: IntArray) -> FloatArray:
    """Follow price after price; `queue` holds ids and lots in order of arrival."""
    found = np.full(kind.size, np.nan)
    orders = 0
    for at in range(kind.size):
        if new[at] or kind[at] == SHOWN:
            orders = 0
        if order_id[at] == 0:
            continue
        place = _place(queue, orders, order_id[at])
        if kind[at] == LIMIT:
            if place == orders:
                queue[orders] = order_id[at], 0
                orders += 1
            queue[place, 1] += size[at]
            continue
        if place == orders:
            continue
        if kind[at] == CANCEL and orders > 1:
            found[at] = (queue[:place, 1].sum() + 0.5 * queue[place, 1]) / queue[:orders, 1].sum()
        queue[place, 1] -= size[at]
        if queue[place, 1] <= 0:
            orders -= 1
            queue[place:orders] = queue[place + 1 : orders + 1].copy()
    return found


@njit(cache=True)
def _place(queue: IntArray, orders: int, order_id: int) -> int:
    """Return the place of an order, or the number of orders where it is not among them."""
    for place in range(orders):
        if queue[place, 0] == order_id:
            return place
    return orders
