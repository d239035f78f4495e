"""Losses where their formulas are delicate, and what they refuse; in both modes."""

import numpy as np
import pytest

import graphjit as gj
import graphjit.nn.functional as F
from graphjit import nn
from graphjit.errors import ArgumentError, BoundsError, DTypeError, ShapeError

SCORES = np.array([2.0, -0.5, 0.5, -3.0])
SIGNS = np.array([1, -1, -1, 1])


def slope(mode, loss, x, *others):
    """The value of a loss, and its gradient by the first operand."""
    @mode
    def run(x, *others):
        x = gj.tensor(x, requires_grad=True)
        found = loss(x, *others)
        found.sum().backward()
        return found, x.grad
    found, grad = run(x, *others)
    return found.data, grad.data


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_hinge(mode, reduction):
    each = np.maximum(0, 1 - SIGNS * SCORES)
    wanted = {"mean": each.mean(), "sum": each.sum(), "none": each}[reduction]
    value, grad = slope(mode, nn.HingeLoss(reduction=reduction), SCORES, SIGNS)
    np.testing.assert_allclose(value, wanted)
    np.testing.assert_allclose(grad, np.where(each > 0, -SIGNS, 0) / (4 if reduction == "mean" else 1))


def test_binary_cross_entropy_at_its_ends(mode):
    value, grad = slope(mode, lambda p, y: F.binary_cross_entropy(p, y, reduction="none"),
                        np.array([0.0, 1.0, 0.0, 1.0, 1.5]), np.array([0.0, 1.0, 1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(value, [0, 0, 100, 100, np.nan])
    np.testing.assert_allclose(grad[:4], [0, 0, -1e12, 1e12])


def test_binary_cross_entropy_differentiates_twice_and_by_its_target():
    p, y = np.array([0.2, 0.7]), np.array([0.5, 0.1])
    gj.testing.check_grads(F.binary_cross_entropy, (p, y), order=2)


def test_divergence_where_the_target_is_zero(mode):
    value, grad = slope(mode, lambda x, y: F.kl_div(x, y, reduction="none"),
                        np.log([0.5, 0.5]), np.array([0.0, 1.0]))
    np.testing.assert_allclose(value, [0, np.log(2)])
    np.testing.assert_allclose(grad, [0, -1])


def test_scores_that_tie_have_no_slope():
    for loss, x, y in ((F.hinge_loss, [1.0], [1]), (F.smooth_l1_loss, [0.0], [0.0]),
                       (F.multi_margin_loss, [[1.0, 0.0]], [0])):
        assert not slope(lambda f: f, loss, np.array(x), np.array(y))[1].any()


@pytest.mark.parametrize("loss", [F.hinge_loss, F.mse_loss, F.binary_cross_entropy_with_logits, F.smooth_l1_loss,
                                  F.huber_loss, F.hinge_embedding_loss])
def test_labels_do_not_widen_the_scores(loss, mode):
    x, y = SCORES.astype(np.float32), (SIGNS > 0).astype(np.int64)
    for labels in (y, y.astype(bool)):
        assert mode(loss)(x, labels).dtype == np.float32
    assert mode(nn.CosineEmbeddingLoss())(x[:2], x[2:], np.int64(1)).dtype == np.float32
    assert mode(nn.MultiMarginLoss())(x, np.int64(1)).dtype == np.float32


PAIRS = [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy, F.kl_div, F.hinge_loss,
         F.binary_cross_entropy_with_logits, F.hinge_embedding_loss]


@pytest.mark.parametrize("loss", PAIRS, ids=lambda f: f.__name__)
def test_operands_do_not_broadcast(loss, mode):
    with pytest.raises(ShapeError, match="one shape"):
        mode(loss)(SCORES, SCORES[:, None])
    with pytest.raises(ArgumentError, match="reduction is"):
        mode(lambda x: loss(x, x, reduction="average"))(SCORES)


def test_what_losses_refuse(mode):
    x, labels = np.ones((3, 4)), np.array([0, 3, 1])
    with pytest.raises(BoundsError):
        mode(F.multi_margin_loss)(x, labels + 1)
    with pytest.raises(BoundsError):
        mode(F.multi_margin_loss)(x, labels - 1)
    with pytest.raises(DTypeError):
        mode(F.multi_margin_loss)(x, labels.astype(float))
    with pytest.raises(DTypeError):
        mode(F.multi_margin_loss)(x.astype(int), labels)
    with pytest.raises(ShapeError, match="labels"):
        mode(F.multi_margin_loss)(x, labels[:2])
    with pytest.raises(ShapeError, match="4 classes"):
        mode(lambda x: F.multi_margin_loss(x, labels, weight=np.ones(3)))(x)
    with pytest.raises(ShapeError, match="cosine"):
        mode(F.cosine_embedding_loss)(x, x, np.ones(4))
    for call in (lambda: F.multi_margin_loss(x, labels, p=3), lambda: F.huber_loss(x, x, delta=0),
                 lambda: F.smooth_l1_loss(x, x, beta=-1), lambda: nn.KLDivLoss(reduction="batch"),
                 lambda: nn.HuberLoss(reduction="avg")):
        with pytest.raises(ArgumentError):
            call()
