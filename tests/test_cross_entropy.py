"Ratings as classes: the loss, the two models, distributions and what is measured of them."
import pickle

import numpy as np, pandas as pd, pytest, torch
from fastai.collab import *
from fastai.tabular.all import *
from scipy import stats

from collab_course.cross_entropy import *
from collab_course.errors import DataError
from collab_course.dot_product import DotProductBias
from collab_course.svdpp import Ensemble
from collab_course.errors import *
from collab_course.interface import *
from collab_course.testing import *
from collab_course.loaders import *
from collab_course.distributed import *
from collab_course.training import recipes

L5 = [1., 2., 3., 4., 5.]
MODELS = {'softmax': SoftmaxDotProduct, 'ordinal': OrdinalDotProduct}
two = RatingCrossEntropy([1, 5])
each = pytest.mark.parametrize('name', MODELS)


def fitted(learn):
    with learn.no_bar(), learn.no_logging(): learn.recipe.fit(learn)
    return learn


def made(name, n_users=6, n_items=5, levels=L5, scale=3.):
    torch.manual_seed(0)
    m = MODELS[name](n_users, n_items, 3, levels)
    with torch.no_grad():
        for p in m.parameters(): p.add_(scale*torch.randn_like(p))
    return m


@each
def test_contract(name):
    check_model(lambda d: MODELS[name](d.n_users, d.n_items, 4, levels_of(d)), loss_func=two)


@pytest.mark.cuda
@each
def test_contract_on_cuda(name):
    learn = check_model(
        lambda d: MODELS[name](d.n_users, d.n_items, 4, levels_of(d)), loss_func=two, device='cuda'
    )
    assert (
        distribution(learn.model, 1, [1, 2]).is_cuda
        and score(GaussianAround(learn.model, [1, 5], 1.0).cuda(), 1, 1).is_cuda
    )


@pytest.mark.parametrize(
    'y, levels',
    [([1, 2, 3, 4], [1, 2, 3, 4]), ([0.5, 5, 3.5, 0.5], [0.5, 3.5, 5]), ([-1, 0, 1.25, 7], [-1, 0, 1.25, 7])],
)
def test_levels_of_loaders(y, levels):
    ratings = pd.DataFrame(dict(user=[1, 2, 3, 1], item=['a', 'b', 'c', 'c'], rating=y))
    assert levels_of(RatingsDataLoaders.from_df(ratings, valid_pct=0., seed=0)) == levels


def test_levels_ascend_in_fastai_loaders():
    ratings = pd.DataFrame(
        dict(user=[1, 2, 3, 1] * 10, item=['a', 'b', 'c', 'c'] * 10, rating=[5.0, 0.5, 3.5, 2.0] * 10)
    )
    d = CollabDataLoaders.from_df(ratings, seed=0)
    assert levels_of(d) == [0.5, 2.0, 3.5, 5.0] and RatingCrossEntropy(levels_of(d)).index(
        torch.tensor([[3.5]])
    ).tolist() == [2]


def test_levels_that_are_no_binary_fractions():
    loss, levels = RatingCrossEntropy([1.1, 2.2, 3.3]), [1.1, 2.2, 3.3]
    for y in (torch.tensor(np.array([3.3, 1.1])), torch.tensor([3.3, 1.1])):
        assert loss.index(y).tolist() == [2, 0]
    p = torch.tensor([[.1, .2, .7], [.8, .1, .1]])
    r = class_report(p, np.array([3.3, 1.1]), levels, good=3.3)
    assert (
        r['accuracy'] == 1.0
        and r['calibration'] == pytest.approx((0.3 + 0.1) / 2, abs=1e-6)
        and r == class_report(p, torch.tensor([3.3, 1.1]), levels, good=3.3)
    )
    d = RatingsDataLoaders.from_df(
        pd.DataFrame(dict(user=[1, 2, 3, 1], item=['a', 'b', 'c', 'c'], rating=[1.1, 3.3, 2.2, 3.3])),
        valid_idx=[1],
        seed=0,
    )
    learn = class_learner(d)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert np.isfinite(learn.recorder.values[-1]).all()


def test_a_level_only_among_validation_rows():
    ratings = pd.DataFrame(dict(user=[1, 2, 3, 1], item=['a', 'b', 'a', 'c'], rating=[1., 5., 5., 3.5]))
    with pytest.raises(DataError, match=r'no training row has the ratings 3\.5 of the validation rows'):
        class_learner(RatingsDataLoaders.from_df(ratings, valid_idx=[3]))
    class_learner(RatingsDataLoaders.from_df(ratings, valid_idx=[2]))
    class_learner(RatingsDataLoaders.from_df(ratings, valid_pct=0.0))


def test_recipe_of_a_derived_class(dls):
    class Derived(OrdinalDotProduct): pass

    assert (
        class_learner(dls, Derived).recipe is ordinal_recipe
        and class_learner(dls, lambda *a: OrdinalDotProduct(*a)).recipe is softmax_recipe
    )


def test_unusable_levels():
    ratings = pd.DataFrame(dict(user=range(300), item='a', rating=3))
    for r, words in ((ratings, 'have 1$'), (ratings.assign(rating=np.arange(300)/7), 'have 240')):
        with pytest.raises(DataError, match=words): levels_of(RatingsDataLoaders.from_df(r, seed=0))
    for bad in ([1.], [], [2, 1], [1, 1], [1, float('nan')], [1, float('inf')], 3., [[1, 2]]):
        for make in (
            RatingCrossEntropy,
            lambda l: SoftmaxDotProduct(3, 3, 2, l),
            lambda l: GaussianAround(DotProductBias(3, 3, 2), l, 1.0),
        ):
            with pytest.raises(ValueError, match='ascending order'): make(bad)
    with pytest.raises(NotInModel, match='DotProductBias has no levels'): levels_of(DotProductBias(3, 3, 2))


def test_loss():
    torch.manual_seed(0)
    half, pred = RatingCrossEntropy([k/2 for k in range(1, 11)]), torch.randn(7, 10)
    y = torch.tensor([.5, 5, 2.5, 3, 1, 4.5, .5])
    k = (2*y - 1).long()
    assert (
        torch.equal(half.index(y), k)
        and torch.equal(half(pred, y), half(pred, y[:, None]))
        and torch.isclose(half(pred, y), F.cross_entropy(pred, k))
    )
    half.reduction = 'none'
    assert half(pred, y[:, None]).shape == (7,)
    assert half.expected_mse(pred, y[:, None]).item() == pytest.approx(
        ((pred.softmax(1) @ half.levels - y) ** 2).mean().item(), abs=1e-6
    )
    assert half.accuracy(pred, y[:, None]) == (pred.argmax(1) == k).float().mean()
    for bad in (.75, 0., 5.5, float('nan')):
        with pytest.raises(DataError, match='none of the levels 0.5, 1, '):
            half(pred[:1], torch.tensor([bad]))


def test_half_precision_logits():
    loss = RatingCrossEntropy(L5)
    p = loss.activation(torch.randn(4, 5).half())
    assert p.dtype == torch.float32 and loss.decodes(p).shape == (4,)


@each
def test_probabilities(name):
    m = made(name)
    x = torch.cartesian_prod(torch.arange(6), torch.arange(5))
    p = m(x).softmax(1)
    assert p.shape == (30, 5) and torch.allclose(p.sum(1), torch.ones(30)) and (p >= 0).all()
    assert (
        torch.allclose(m.to_rating(m(x)), p @ m.levels)
        and (m.to_rating(m(x)) >= 1).all()
        and (m.to_rating(m(x)) <= 5).all()
    )
    assert torch.allclose(score(m, x[:, 0], x[:, 1]), p @ m.levels) and torch.allclose(
        distribution(m, x[:, 0], x[:, 1]), p
    )
    u, i = x[7]
    s = (factors(m, 'user')[u]*factors(m)[i]).sum() + biases(m, 'user')[u] + biases(m)[i]
    assert torch.isclose(s, m.agreement(x)[7, 0])
    with pytest.raises(ValueError, match="'user' or 'item'"): factors(m, 'genre')
    assert levels_of(m) == L5 and sizes(m) == (6, 5)


@each
def test_gradients_reach_every_parameter(name):
    m = made(name, scale=.3)
    RatingCrossEntropy(L5)(m(torch.tensor([[1, 2], [3, 4]])), torch.tensor([[2.], [5.]])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in m.parameters())
    # the unknown was not asked about
    assert all(not p.grad[0].any() for n, p in m.named_parameters() if n.startswith(('user_', 'item_')))


def test_thresholds_stay_in_order():
    m = made('ordinal', scale=30.)                                           # whatever the numbers
    x = torch.cartesian_prod(torch.arange(6), torch.arange(5))
    theta, gaps = m.thresholds(x)
    assert (
        theta.shape == (30, 4)
        and gaps.shape == (30, 3)
        and (gaps > 0).all()
        and (theta.double().diff(dim=1) >= 0).all()
    )
    out = m(x)
    out.sum().backward()
    assert out.isfinite().all() and all(p.grad.isfinite().all() for p in m.parameters())


def test_ordinal_probabilities_are_differences_of_sigmoids():
    m = made('ordinal', scale=1.).double()
    x = torch.cartesian_prod(torch.arange(6), torch.arange(5))
    below = stats.logistic.cdf((m.thresholds(x)[0] - m.agreement(x)).detach().numpy())
    assert np.allclose(m(x).exp().detach(), np.diff(below, prepend=0, append=1, axis=1), atol=1e-9)
    far = OrdinalDotProduct(2, 2, 1, L5)
    with torch.no_grad(): far.user_biases.weight.fill_(200.)
    assert far(torch.tensor([[1, 1]])).isfinite().all() and score(far, 1, 1).item() == pytest.approx(5)


def test_liking_more_is_a_higher_rating():
    for name in MODELS:
        m = MODELS[name](20, 2, 1, L5)
        with torch.no_grad():
            for p in m.parameters(): p.zero_() if p.shape[0] in (20, 2) else None
            m.user_biases.weight.copy_(torch.linspace(-4, 4, 20)[:, None])
        assert (score(m, torch.arange(20), 1).diff() > 0).all()


@each
def test_saved_and_rebuilt(name):
    m = made(name)
    kind, args = kind_of(m)
    again = rebuild(kind, args)
    again.load_state_dict(m.state_dict())
    for other in (again, pickle.loads(pickle.dumps(m))):
        assert torch.equal(distribution(other, range(6), 1), distribution(m, range(6), 1))
    halves = [k/2 for k in range(1, 11)]
    assert levels_of(rebuild(*kind_of(MODELS[name](3, 3, 2, halves)))) == halves


def test_distribution_shapes_and_errors():
    m = made('softmax')
    assert distribution(m, torch.arange(6)[:, None], torch.arange(5)).shape == (6, 5, 5) and distribution(
        m, 1, 1
    ).shape == (5,)
    assert distribution(m, torch.empty(0, dtype=torch.long), 1).shape == (0, 5)
    for bad in ((6, 1), (1, 5), (-1, 1)):
        with pytest.raises(IndexError): distribution(m, *bad)
    with pytest.raises(TypeError): distribution(m, 1.5, 1)
    with pytest.raises(NotInModel, match='`GaussianAround` makes one of it'):
        distribution(DotProductBias(3, 3, 2), 1, 1)
    # more than one block
    x = torch.cartesian_prod(torch.arange(6), torch.arange(5)).repeat(5000, 1)
    assert torch.allclose(distribution(m, pd.Series(x[:, 0].numpy()), x[:, 1]), m(x).softmax(1), atol=1e-6)
    m.train(); distribution(m, 1, 1)
    assert m.training and not distribution(m, 1, 1).requires_grad


def test_ensemble_of_classes():
    a, b = made('softmax'), made('ordinal')
    e = Ensemble([a, b])
    assert torch.allclose(
        distribution(e, range(6), 2), (distribution(a, range(6), 2) + distribution(b, range(6), 2)) / 2
    )
    assert (
        torch.allclose(distribution(e, range(6), 2) @ torch.tensor(L5), score(e, range(6), 2), atol=1e-5)
        and levels_of(e) == L5
    )
    with pytest.raises(ValueError, match='different levels'):
        distribution(Ensemble([a, made('softmax', levels=[1, 2])]), 1, 1)
    with pytest.raises(NotInModel): distribution(Ensemble([a, DotProductBias(6, 5, 3)]), 1, 1)


def test_gaussian_around():
    m = DotProductBias(6, 5, 3)
    g = GaussianAround(m, L5, .8)
    r = score(m, 2, 3).item()
    cdf = stats.norm(r, .8).cdf([1.5, 2.5, 3.5, 4.5])
    assert np.allclose(distribution(g, 2, 3), np.diff(cdf, prepend=0, append=1), atol=1e-6)
    assert distribution(GaussianAround(m, L5, 1e-3), 2, 3).argmax() == round(r) - 1
    # fine levels: the rating itself
    assert abs(score(GaussianAround(m, np.arange(-10, 15, .1), .8), 2, 3).item() - r) < 1e-3
    kind, args = kind_of(g)
    again = rebuild(kind, args); again.load_state_dict(g.state_dict())
    assert (
        torch.equal(distribution(again, 2, 3), distribution(g, 2, 3))
        and torch.equal(factors(g), factors(m))
        and torch.equal(biases(g, 'user'), biases(m, 'user'))
    )
    for bad in (0., -1., float('nan')):
        with pytest.raises(ValueError, match='above 0'): GaussianAround(m, L5, bad)
    own = GaussianAround(m, L5, .8, [1.9, 2.4, 3.3, 4.4])
    cdf = stats.norm(r, .8).cdf([1.9, 2.4, 3.3, 4.4])
    assert np.allclose(distribution(own, 2, 3), np.diff(cdf, prepend=0, append=1), atol=1e-6)
    again = rebuild(*kind_of(own)); again.load_state_dict(own.state_dict())
    assert torch.equal(distribution(again, 2, 3), distribution(own, 2, 3))
    for bad in ([1.], [1, 2, 3, 3], [4, 3, 2, 1], [1, 2, 3, float('nan')], 3.):
        with pytest.raises(ValueError, match='5 levels need 4 cuts in ascending order'):
            GaussianAround(m, L5, 0.8, bad)


def test_reliability():
    p, happened = [.05, .15, .15, 1., 0.], [1, 0, 1, 1, 0]
    r = reliability(p, happened)
    assert (
        r.n.tolist() == [2, 2, 1]
        and np.allclose(r.predicted, [0.025, 0.15, 1.0])
        and np.allclose(r.frequency, [0.5, 0.5, 1.0])
    )
    assert calibration_error(p, happened) == pytest.approx((2 * 0.475 + 2 * 0.35) / 5) and isinstance(
        calibration_error(p, happened), float
    )
    assert reliability(torch.tensor(p), torch.tensor(happened).bool(), bins=1).n.tolist() == [5]
    for bad, words in (
        (([], []), 'at least one'),
        (([0.1], [1, 0]), '1 and 2'),
        (([1.2], [1]), 'from 0 to 1'),
        (([float('nan')], [1]), 'from 0 to 1'),
    ):
        with pytest.raises(ValueError, match=words): reliability(*bad)


def test_class_report():
    sklearn = pytest.importorskip('sklearn.metrics')
    rng = np.random.default_rng(0)
    p, k = rng.dirichlet(np.ones(5), 500), rng.integers(0, 5, 500)
    r = class_report(p, k + 1., L5)
    assert r['log_loss'] == pytest.approx(sklearn.log_loss(k, p), abs=1e-9) and r[
        'accuracy'
    ] == sklearn.accuracy_score(k, p.argmax(1))
    assert r['mse'] == pytest.approx(sklearn.mean_squared_error(k + 1, p @ L5)) and r[
        'mse_mode'
    ] == sklearn.mean_squared_error(k, p.argmax(1))
    assert r['mse_rounded'] == pytest.approx(sklearn.mean_squared_error(k + 1, np.round(p @ L5))) and r[
        'calibration'
    ] == calibration_error(p[:, 3:].sum(1), k >= 3)
    half = class_report(torch.tensor([[.5, .5]]), [1.], [1, 2], good=2)
    assert half['mse_median'] == 0.                                          # a tie goes to the lower one
    with pytest.raises(ValueError, match=r'\(500, 4\) are needed'): class_report(p, k + 1., L5[:4])
    with pytest.raises(DataError, match='none of the levels'): class_report(p, k + .5, L5)
    for bad in (1, 5.5, float('nan')):
        with pytest.raises(ValueError, match='good must be above 1, the lowest level, and at most 5'):
            class_report(p, k + 1.0, L5, good=bad)


def test_two_peaks():
    assert torch.allclose(
        two_peaks(torch.tensor([[0.5, 0, 0.5], [0, 1, 0], [1 / 3] * 3])), torch.tensor([0.5, 0, 0]), atol=1e-6
    )
    assert two_peaks(torch.rand(2, 3, 4)).shape == (2, 3)


def test_plot():
    import matplotlib.pyplot as plt
    p = torch.ones(3, 5)/5
    axs = plot_distributions({'a': p, 'b': p}, L5, ['x', 'y', 'z'], [1., float('nan'), 3.])
    assert len(axs) == 3 and len(axs[0].patches) == 10 and axs[0].get_xlabel() and axs[0].get_ylabel()
    plt.close('all')
    with pytest.raises(ValueError, match=r'\(2, 5\) are needed'): plot_distributions({'a': p}, L5, ['x', 'y'])


def test_learner_functions(dls, tmp_path):
    learn = class_learner(dls, OrdinalDotProduct)
    assert learn.recipe is ordinal_recipe and class_learner(dls).recipe is softmax_recipe
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, .01, wd=.25); final = learn.recorder.values[-1]
        p, y, rating = learn.get_preds(with_decoded=True)
        _, _, losses = learn.get_preds(with_loss=True)
        decoded, one, probs = learn.predict(dls.valid_ds.items.iloc[3])
        two_rows = learn.get_preds(dl=learn.dls.test_dl(dls.valid_ds.items.iloc[:2]), with_decoded=True)[2]
        learn.show_results(max_n=2)
        learn.export(tmp_path/'learn.pkl')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            again = load_learner(tmp_path/'learn.pkl')
        with again.no_bar(): assert torch.allclose(again.predict(dls.valid_ds.items.iloc[3])[1], one)
    x, _ = dls.valid_ds[:]
    assert p.shape == (20_000, 5) and torch.allclose(
        rating, score(learn.model, x[:, 0], x[:, 1]).cpu(), atol=1e-4
    )
    assert losses.shape == (20_000,) and losses.mean().item() == pytest.approx(final[1], abs=1e-4)
    assert (
        torch.isclose(one, rating[3], atol=1e-4)
        and torch.allclose(probs, p[3], atol=1e-4)
        and torch.allclose(two_rows, rating[:2], atol=1e-4)
    )
    assert final[2] == pytest.approx(((rating - y[:, 0])**2).mean().item(), abs=1e-4)


def test_same_seed_same_run(dls):
    a, b = (fitted(class_learner(dls, seed=3)).model for _ in range(2))
    assert torch.equal(score(a, range(50), 7), score(b, range(50), 7))


def test_real_ratings(dls):
    "What the chapter claims of split 0"
    four = recipes['fast'].learner(dls, lambda u, i: DotProductBias(u, i, 50))
    with four.no_bar(), four.no_logging(): recipes['fast'].fit(four)
    mse_4 = four.recorder.values[-1][1]
    for make in MODELS.values():
        _, loss, mse, accuracy = fitted(class_learner(dls, make)).recorder.values[-1]
        assert .79 < mse <= mse_4 and 1.2 < loss < 1.24 and .44 < accuracy < .48


def test_ml_latest_small(latest):
    d = RatingsDataLoaders.from_df(latest.ratings, item_name='title', rating_name='rating', seed=0, bs=512)
    assert levels_of(d) == [k/2 for k in range(1, 11)]
    for make in MODELS.values(): assert .6 < fitted(class_learner(d, make)).recorder.values[-1][2] < .75
