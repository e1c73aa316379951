"The seventh model against brute force, on tables whose truth is known, and where it has to refuse."
import copy

import numpy as np, pandas as pd, pytest, torch
from fastai.collab import Learner

from collab_course.bayes import BayesianMF
from collab_course.bayes_fit import *
from collab_course.errors import DataError, NotInModel
from collab_course.interface import biases, factors, score
from collab_course.loaders import RatingsDataLoaders
from collab_course.recommendation import Recommender


def world(n_users=300, n_items=80, share=.3, noise=.5, seed=0, offset=0.):
    "Ratings whose formula and noise are known, two minutes apart or in sittings of about ten"
    draw = np.random.default_rng(seed)
    users, items = draw.normal(0, .7, (n_users, 2)), draw.normal(0, .7, (n_items, 2))
    user, item = np.nonzero(draw.random((n_users, n_items)) < share)
    truth = 3 + (users[user]*items[item]).sum(1)
    truth = truth + draw.normal(0, .4, n_users)[user] + draw.normal(0, .4, n_items)[item]
    sitting = draw.integers(0, 3, len(user))
    truth = truth + offset*draw.normal(0, 1, (n_users, 3))[user, sitting]
    rating = truth + draw.normal(0, noise, len(user))
    return pd.DataFrame(dict(user=user, item=item, rating=rating, timestamp=sitting*10_000 + user*100_000))


def loaders(table, **kwargs): return RatingsDataLoaders.from_df(table, seed=0, device='cpu', **kwargs)
def wide(dls, k=2, **kwargs): return BayesianMF.from_dls(dls, k, rating_range=(-99, 99), **kwargs)
def mse(model, ds, x=None): return (model(ds.x if x is None else x) - ds.y.flatten()).square().mean().item()


def test_users_posteriors_are_those_of_brute_force():
    "With the films held exactly: the normal equations of each user, one by one"
    dls = loaders(world(20, 12))
    model = wide(dls)
    sweeps = Sweeps(model, dls.train_ds, ridge=None)
    torch.manual_seed(0)
    model.items.mean, alpha = torch.randn(dls.n_items, 3), 1.7
    model.items.cov.zero_()
    prior = torch.randn(dls.n_users, 3)
    update_side(model.users, prior, model.items, sweeps.by_user, sweeps.y[sweeps.by_user.order], alpha)
    for u in range(dls.n_users):
        rows = dls.train_ds.x[:, 0] == u
        y = model.items.mean[dls.train_ds.x[rows, 1]].double()
        r = sweeps.y[rows].double() - y[:, -1]
        y[:, -1] = 1
        precision = alpha*y.T@y + model.users.precision.double().diag()
        mean = torch.linalg.solve(precision, alpha*y.T@r + model.users.precision.double()*prior[u].double())
        assert torch.allclose(model.users.mean[u].double(), mean, atol=1e-4)
        assert torch.allclose(model.users.cov[u].double(), precision.inverse(), atol=1e-4)


def test_uncertain_films_count_as_they_would_in_many_draws():
    "E[y yᵀ] and E[b y] of random films"
    films = Normals(1, 3)
    films.mean, root = torch.tensor([[.5, -1, .3]]), torch.tensor([[1., 0, 0], [.3, .5, 0], [-.2, .4, .6]])
    films.cov = (root@root.T)[None]
    torch.manual_seed(0)
    draws = films.mean + torch.randn(400_000, 3)@root.T
    y = torch.nn.functional.pad(draws[:, :2], (0, 1), value=1.)
    squares, mean, with_bias = films.seen_by_others()
    assert torch.allclose(squares[0], y.T@y/len(y), atol=.02)
    assert torch.allclose(mean[0], y.mean(0), atol=.01)
    assert torch.allclose(with_bias[0], (draws[:, 2:]*y).mean(0), atol=.02)


def test_without_variance_it_is_alternating_least_squares():
    dls = loaders(world(30, 15))
    model = wide(dls)
    sweeps = Sweeps(model, dls.train_ds, ridge=None)
    def loss():
        x = dls.train_ds.x
        pred = model(x) - model.mean_rating
        return ((sweeps.y - pred).square().sum() + 2*(model.users.mean.square().sum()
                                                      + model.items.mean.square().sum())).item()
    last = np.inf
    for _ in range(10):
        for side, other, rows in ((model.users, model.items, sweeps.by_user),
                                  (model.items, model.users, sweeps.by_item)):
            other.cov.zero_()
            side.precision = torch.full((3,), 2.)
            update_side(side, torch.zeros_like(side.mean), other, rows, sweeps.y[rows.order], 1.)
            assert loss() < last + 1e-3                                   # each half step can only go down
            last = loss()


def test_error_bars_cover_what_they_say_where_the_truth_is_known():
    dls = loaders(world(600, 120))
    model = wide(dls).fit(dls, 30, ridge=None)
    assert model.rating_noise == pytest.approx(.5, abs=.03)
    off = (dls.valid_ds.y.flatten() - model(dls.valid_ds.x)).abs()/model.uncertainty(dls.valid_ds.x)
    for share, half in ((.5, .674), (.8, 1.282), (.95, 1.96)):
        assert (off < half).float().mean().item() == pytest.approx(share, abs=.02)


def test_the_variance_of_a_prediction_is_that_of_many_draws():
    dls = loaders(world(20, 12))
    model = wide(dls, sittings=False).fit(dls, 3)
    draw = torch.distributions.MultivariateNormal
    users, items = (draw(s.mean[3].double(), s.cov[3].double()) for s in (model.users, model.items))
    torch.manual_seed(0)
    u, i = users.sample((400_000,)), items.sample((400_000,))
    ratings = (u[:, :-1]*i[:, :-1]).sum(1) + u[:, -1] + i[:, -1]
    want = (ratings.var() + model.noise_var).sqrt().item()
    assert model.uncertainty(torch.tensor([[3, 3]])).item() == pytest.approx(want, rel=.01)


def test_sittings_are_found_where_they_are_and_only_there():
    dls = loaders(world(offset=.6))
    model, plain = wide(dls, seconds=(60,)).fit(dls, 20), wide(dls, sittings=False).fit(dls, 20)
    assert model.sittings.spread.sqrt().item() == pytest.approx(.6, abs=.06)
    timed = with_times(dls.valid_ds)
    assert mse(model, dls.valid_ds, timed) < mse(plain, dls.valid_ds) - .1
    elsewhen = timed.clone()
    elsewhen[:, 2] += 50_000                                              # a sitting that nobody had
    assert torch.equal(model(elsewhen), model(dls.valid_ds.x))
    assert (model.uncertainty(elsewhen) >= model.uncertainty(timed)).all()
    assert (model.uncertainty(elsewhen) > model.uncertainty(timed)).float().mean() > .95
    assert torch.equal(model.uncertainty(elsewhen), model.uncertainty(dls.valid_ds.x))
    nothing = wide(loaders(world()), seconds=(60,)).fit(loaders(world()), 20)
    assert nothing.sittings.spread.sqrt().item() < .15


def test_an_unknown_sitting_counts_as_noise():
    "what is said of items is no wider for it; no rating without a time is surer than its noise"
    dls = loaders(world(offset=.6))
    model = wide(dls).fit(dls, 10, ridge=None)
    spread = model.sittings.spread.sum().item()
    assert spread > .1 and model.rating_noise**2 == pytest.approx(model.noise_var.item() + spread)
    assert (model.uncertainty(dls.valid_ds.x[:, :2]) > model.rating_noise).all()
    doubts = Recommender.from_learner(Learner(dls, model))._item_variance[1:]
    assert doubts.min() >= 0 and doubts.max() < spread


def test_folding_in_is_the_posterior_of_one_more_user():
    dls = loaders(world())
    model = wide(dls, sittings=False).fit(dls, 10)
    rated, ratings = torch.tensor([3, 5, 9]), torch.tensor([4., 2, 3])
    mean, cov = model.fold_in(rated, ratings)
    squares, y, with_bias = model.items.seen_by_others()
    alpha = 1/model.noise_var
    precision = alpha*squares[rated].sum(0) + model.users.precision.diag()
    sums = alpha*(y[rated]*(ratings - model.mean_rating)[:, None] - with_bias[rated]).sum(0)
    prior = model.given_part(rated)
    assert torch.allclose(cov, precision.inverse(), atol=1e-5)
    want = cov@(sums + model.users.precision*prior)
    want[-1] += model.mean_rating
    assert torch.allclose(mean, want, atol=1e-4)
    nothing, nobody = model.fold_in([], [])
    assert nothing.isfinite().all() and nobody.trace() > cov.trace()
    with pytest.raises(NotInModel): model.given_part(rated, {'age': 20})


def test_the_protocol_adds_up_and_repeats_to_the_bit():
    dls = loaders(world())
    model, again = (BayesianMF.from_dls(dls, 4).fit(dls, 5) for _ in range(2))
    for k, v in model.state_dict().items(): assert torch.equal(v, again.state_dict()[k]), k
    x = dls.valid_ds.x
    by_parts = (factors(model, 'user')[x[:, 0]]*factors(model, 'item')[x[:, 1]]).sum(1)
    by_parts += biases(model, 'user')[x[:, 0]] + biases(model, 'item')[x[:, 1]]
    assert torch.allclose(score(model, *x.T), by_parts.clamp(*model.rating_range), atol=1e-5)


def test_a_recommender_keeps_it(tmp_path):
    dls = loaders(world())
    model = BayesianMF.from_dls(dls, 4).fit(dls, 5)
    rec = Recommender.from_learner(Learner(dls, model))
    rec.save(tmp_path/'rec')
    loaded = Recommender.load(tmp_path/'rec')
    x = with_times(dls.valid_ds)
    assert torch.equal(loaded.model(x), model(x))
    assert torch.equal(loaded.model.uncertainty(x), model.uncertainty(x))
    new = rec.predict_new({3: 2.5, 7: 3.}, [1, 2])
    mean = model.fold_in([dls.classes['item'].o2i[k] for k in (3, 7)], [2.5, 3.])[0]
    idx = [dls.classes['item'].o2i[k] for k in (1, 2)]
    want = factors(model)[idx]@mean[:-1] + mean[-1] + biases(model)[idx]
    assert np.allclose(new, want, atol=1e-4)
    later = rec.update(pd.DataFrame(dict(user=[9999]*3, item=[1, 2, 3], rating=[2.5, 3, 3.5])))
    assert len(later.users) == len(rec.users) + 1 and np.isfinite(later.predict([(9999, 5)])).all()


@pytest.mark.parametrize('rows', [
    [(1, 1, 4.)],
    [(1, 1, 4.), (1, 2, 4.), (2, 1, 4.)],
    [(1, 1, 1.), (2, 1, 5.)],
    [(1, k, 3.) for k in range(30)],
])
def test_tiny_and_equal_tables_get_sensible_answers(rows):
    table = pd.DataFrame(rows, columns=['user', 'item', 'rating']).assign(timestamp=7)
    dls = loaders(table, valid_idx=[])
    model = BayesianMF.from_dls(dls).fit(dls)
    everything = torch.cartesian_prod(torch.arange(dls.n_users), torch.arange(dls.n_items))
    ratings, sd = model(everything), model.uncertainty(everything)
    assert ratings.isfinite().all() and sd.isfinite().all() and (sd > 0).all()
    assert ratings.min() >= table.rating.min() and ratings.max() <= table.rating.max()


def test_a_failure_is_one_clear_error():
    dls = loaders(world(20, 12))
    model = wide(dls)
    sweeps = Sweeps(model, dls.train_ds)
    model.items.mean[3] = float('nan')
    with pytest.raises(DataError, match='cannot be solved'): sweeps.sweep()


def test_blocks_do_not_change_the_answer(monkeypatch):
    dls = loaders(world(50, 20))
    whole = wide(dls).fit(dls, 3)
    import collab_course.bayes_fit as fit
    monkeypatch.setattr(fit, '_block', 64)                                # seven rows at a time
    blocks = wide(dls).fit(dls, 3)
    assert torch.allclose(whole(dls.valid_ds.x), blocks(dls.valid_ds.x), atol=1e-3)


@pytest.mark.parametrize('kind', ['missing', 'text', 'dates'])
def test_loaders_keep_times_where_they_are_times(kind):
    table = world(20, 12)
    if kind == 'missing': table.loc[3, 'timestamp'] = np.nan
    if kind == 'text': table['timestamp'] = table.timestamp.astype(str)
    if kind == 'dates': table['timestamp'] = pd.to_datetime(table.timestamp, unit='s')
    dls = loaders(table)
    if kind != 'dates':
        assert dls.train_ds.time is None and with_times(dls.train_ds).shape[1] == 2
        assert BayesianMF.from_dls(dls).fit(dls, 2).n_sittings == 0
    else: assert torch.equal(dls.train_ds.time, loaders(world(20, 12)).train_ds.time)
    assert copy.copy(dls.train_ds.new_empty()).x.shape == (0, 2)


@pytest.mark.cuda
def test_it_is_fitted_on_cuda_too():
    table = world()
    here = BayesianMF.from_dls(loaders(table), 4).fit(loaders(table), 5)
    dls = RatingsDataLoaders.from_df(table, seed=0, device='cuda')
    there = BayesianMF.from_dls(dls, 4).fit(dls, 5)
    x = dls.valid_ds.x
    assert torch.allclose(there(x.cuda()).cpu(), here(x.cpu()), atol=.02)
