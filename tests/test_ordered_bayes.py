"Ordered stars in closed form: against brute force, on tables whose truth is known, and refusals."
import copy, math

import numpy as np, pandas as pd, pytest, torch
from fastai.collab import Learner
from scipy import integrate, optimize, stats

from collab_course.bayes import BayesianMF
from collab_course.bayes_fit import *
from collab_course.cross_entropy import (
    SoftmaxDotProduct, calibration_error, class_report, distribution, levels_of,
)
from collab_course.errors import DataError, NotInModel
from collab_course.interface import kind_of, rebuild, score
from collab_course.loaders import RatingsDataLoaders
from collab_course.ordered_bayes import *
from collab_course.playground import _model_part
from collab_course.recommendation import Recommender
from collab_course.svdpp import Ensemble

HALF = [k/2 for k in range(1, 11)]


def world(n_users=300, n_items=80, cuts=(-1.6, -.8, .2, 1.3), levels=(1, 2, 3, 4, 5), offset=0.):
    "Stars cut from a line whose formula is known; the probabilities that they had"
    draw = np.random.default_rng(0)
    users, items = draw.normal(0, .8, (n_users, 2)), draw.normal(0, .8, (n_items, 2))
    user, item = np.nonzero(draw.random((n_users, n_items)) < .3)
    line = (users[user]*items[item]).sum(1)
    line = line + draw.normal(0, .5, n_users)[user] + draw.normal(0, .5, n_items)[item]
    sitting = draw.integers(0, 3, len(user))
    line = line + offset*draw.normal(0, 1, (n_users, 3))[user, sitting]
    star = np.searchsorted(cuts, line + draw.normal(0, 1, len(user)))
    rating = np.array(levels, dtype=float)[star]
    return pd.DataFrame(dict(user=user, item=item, rating=rating, timestamp=sitting*10_000 + user*100_000))


def loaders(table, **kwargs): return RatingsDataLoaders.from_df(table, seed=0, device='cpu', **kwargs)
def fitted(dls, k=2, n_sweeps=10, labels=(), ridge=2., **kwargs):
    return OrderedBayesianMF.from_dls(dls, k, **kwargs).fit(dls, n_sweeps, labels, ridge=ridge)


def test_numbers_within_a_piece_are_scipys():
    draw = np.random.default_rng(0)
    line, cuts = draw.normal(0, 2, 500), np.array([-2., -.5, -.4, 1, 3])
    star = draw.integers(0, 6, 500)
    ends = np.concatenate([[-np.inf], cuts, [np.inf]])
    low, high = ends[star] - line, ends[star + 1] - line
    mean, told = within_piece(*map(torch.tensor, (line, star, cuts)))
    near = (low < 5) & (high > -5)                                    # further out scipy itself is off
    assert np.allclose(mean[near], stats.truncnorm.mean(low, high, loc=line)[near], atol=1e-8)
    assert np.allclose(told[near], 1 - stats.truncnorm.var(low, high)[near], atol=1e-6)


@pytest.mark.parametrize('far', [10., 38., 100., 1e4])
def test_far_out_nothing_is_lost(far):
    cuts = torch.tensor([-1., 0, .001])
    line = torch.tensor([far, far, far, far, -far, -far, -far, -far])
    star = torch.tensor([0, 1, 2, 3]*2)
    mean, told = within_piece(line, star, cuts)
    assert mean.isfinite().all() and ((told >= 0) & (told <= 1)).all()
    ends = torch.tensor([-math.inf, -1, 0, .001, math.inf])
    slack = 1e-4*far
    assert (mean >= ends[star] - slack).all() and (mean <= ends[star + 1] + slack).all()
    assert math.isfinite(cut_likelihood(line, star, cuts))
    better = better_cuts(line, star, cuts)
    assert better.isfinite().all() and (better.diff() > 0).all()


def test_the_pieces_add_up():
    ends = torch.linspace(-30, 30, 4001).double()
    assert log_piece(ends[:-1], ends[1:]).exp().sum().item() == pytest.approx(1, abs=1e-12)
    exact = stats.norm.logsf(20) + np.log1p(-np.exp(stats.norm.logsf(21) - stats.norm.logsf(20)))
    assert log_piece(*torch.tensor([20., 21]).double()).item() == pytest.approx(exact, rel=1e-12)


def test_cuts_are_those_of_a_search():
    draw = np.random.default_rng(1)
    line = draw.normal(0, 1, 400)
    star = np.searchsorted([-1, .3, .8], line + draw.normal(0, 1, 400))
    found = better_cuts(torch.tensor(line), torch.tensor(star), torch.tensor([-.1, 0, .1]), 20)
    line, star = np.append(line, np.zeros(4)), np.append(star, np.arange(4))  # one of each, at 0
    def loss(numbers):
        cuts = numbers[0] + np.concatenate([[0], np.exp(numbers[1:]).cumsum()])
        ends = np.concatenate([[-np.inf], cuts, [np.inf]])
        return -np.log(stats.norm.cdf(ends[star + 1] - line) - stats.norm.cdf(ends[star] - line)).sum()
    best = optimize.minimize(loss, [-1, 0, 0], method='BFGS').x
    assert np.allclose(found, best[0] + np.concatenate([[0], np.exp(best[1:]).cumsum()]), atol=1e-3)


def test_two_levels_are_probit_regression():
    "Films held exactly, a broad prior: folding in ends at the maximum of the posterior, which a search finds"
    dls = loaders(world(cuts=(0.,), levels=(0, 1)))
    model = fitted(dls, sittings=False)
    model.items.cov.zero_()
    rated = torch.tensor([3, 5, 9, 12, 20, 31])
    stars = torch.tensor([1., 0, 1, 1, 0, 1])
    mean, cov = model.fold_in(rated, stars, n_turns=300)
    y = torch.nn.functional.pad(model.items.mean[rated, :-1], (0, 1), value=1.).double().numpy()
    bias, cut = model.items.mean[rated, -1].double().numpy(), model.cuts.item()
    precision, prior = model.users.precision.double().numpy(), model.given_part(rated).double().numpy()
    sign = 2*stars.numpy() - 1
    def loss(a):
        likely = stats.norm.logcdf(sign*(y@a + bias - cut)).sum()
        return -likely + .5*(precision*(a - prior)**2).sum()
    best = optimize.minimize(loss, prior, method='BFGS', tol=1e-10).x
    assert np.allclose(mean, best, atol=1e-4)
    want = np.linalg.inv(model.told.item()*y.T@y + np.diag(precision))
    assert np.allclose(cov, want, atol=1e-4)


def test_probabilities_are_those_of_numeric_integration():
    dls = loaders(world())
    model = fitted(dls)
    x = with_times(dls.valid_ds)[:20]
    p = model.probabilities(x)
    assert p.shape == (20, 5) and torch.allclose(p.sum(1), torch.ones(20), atol=1e-6)
    mean, sd = (o.double().numpy() for o in model.line(x))
    ends = [-np.inf, *model.cuts.tolist(), np.inf]
    for k in range(20):
        unsure = math.sqrt(sd[k]**2 - 1)
        for star in range(5):                           # over what is not known; the noise is in `given`
            def given(z): return np.diff(stats.norm.cdf(np.array(ends[star:star + 2]) - z))[0]
            def weighed(z): return given(z)*stats.norm.pdf(z, mean[k], unsure)
            want = integrate.quad(weighed, mean[k] - 9*unsure, mean[k] + 9*unsure)[0]
            assert p[k, star].item() == pytest.approx(want, abs=1e-5)
    levels = torch.arange(1., 6)
    assert torch.allclose(model(x), p@levels, atol=1e-5)
    variance = p@levels.square() - (p@levels).square()
    assert torch.allclose(model.uncertainty(x), variance.sqrt(), atol=1e-3)


def test_the_truth_is_found_and_the_probabilities_are_calibrated():
    cuts = -1.6, -.8, .2, 1.3
    dls = loaders(world(800, 120))
    model = fitted(dls, ridge=None, n_sweeps=20, sittings=False)
    assert np.allclose(np.diff(model.cuts), np.diff(cuts), rtol=.03)
    assert (model.cuts.diff() > 0).all()
    p, y = model.probabilities(dls.valid_ds.x), dls.valid_ds.y.flatten()
    for star in range(2, 6):
        assert calibration_error(p[:, star - 1:].sum(1), y >= star) < .02
    sd = model.uncertainty(dls.valid_ds.x)
    assert ((y - model(dls.valid_ds.x))/sd).square().mean().item() == pytest.approx(1, abs=.04)
    plain = BayesianMF.from_dls(dls, 2).fit(dls, 10, ridge=None)
    mine = class_report(p, y, model.levels)
    assert mine['mse'] < (plain(dls.valid_ds.x) - y).square().mean() + .002


def test_sittings_count_where_there_are_any():
    dls = loaders(world(offset=.7))
    model, plain = fitted(dls, n_sweeps=60, seconds=(60,)), fitted(dls, sittings=False)
    assert model.sittings.spread.sqrt().item() == pytest.approx(.7, abs=.06)
    timed, y = with_times(dls.valid_ds), dls.valid_ds.y
    with_, without = (class_report(p, y, model.levels)['log_loss']
                      for p in (model.probabilities(timed), plain.probabilities(dls.valid_ds.x)))
    assert with_ < without - .04
    elsewhen = timed.clone()
    elsewhen[:, 2] += 50_000
    assert torch.equal(model(elsewhen), model(dls.valid_ds.x))


def test_half_stars():
    cuts = np.linspace(-2, 2, 9)
    dls = loaders(world(cuts=cuts, levels=HALF))
    model = fitted(dls)
    assert model.levels == HALF == levels_of(model) and (model.cuts.diff() > 0).all()
    x = dls.valid_ds.x
    p = model.probabilities(x)
    assert p.shape == (len(x), 10) and torch.allclose(distribution(model, *x.T), p, atol=1e-5)
    assert torch.allclose(score(model, *x.T), p@torch.tensor(HALF), atol=1e-4)
    assert model.fold_in([1, 2], [3.2, 4.])[0].equal(model.fold_in([1, 2], [3., 4.])[0])


def test_it_goes_with_other_models_of_classes():
    dls = loaders(world())
    model, other = fitted(dls), SoftmaxDotProduct(dls.n_users, dls.n_items, 4, [1, 2, 3, 4, 5])
    x = dls.valid_ds.x
    both = Ensemble([model, other])
    want = (distribution(model, *x.T) + distribution(other, *x.T))/2
    assert levels_of(both) == [1, 2, 3, 4, 5] and torch.allclose(distribution(both, *x.T), want)
    with pytest.raises(IndexError): distribution(model, dls.n_users, 1)
    with pytest.raises(NotInModel): distribution(BayesianMF.from_dls(dls, 2), 1, 1)


def test_bells_of_the_seventh_model_cut_half_way():
    dls = loaders(world())
    model = BayesianMF.from_dls(dls, 2).fit(dls, 5)
    x = with_times(dls.valid_ds)[:50]
    assert torch.equal(model.unclamped(x).clamp(1, 5), model(x))
    mean, sd = (o[:, None].double().numpy() for o in (model.unclamped(x), model.uncertainty(x)))
    below = stats.norm.cdf([-np.inf, 1.5, 2.5, 3.5, 4.5, np.inf], mean, sd)
    assert np.allclose(half_way(model, x, [1, 2, 3, 4, 5]), np.diff(below), atol=1e-6)


def test_a_person_folded_in_is_near_their_row():
    dls = loaders(world())
    model = fitted(dls, n_sweeps=40, sittings=False)
    train, off = dls.train_ds, []
    for u in range(1, 40):
        rows = train.x[:, 0] == u
        mean, cov = model.fold_in(train.x[rows, 1], train.y[rows].flatten())
        y = torch.nn.functional.pad(model.items.mean[1:, :-1], (0, 1), value=1.)
        off.append((y@(mean - model.users.mean[u])).abs().mean().item())
        assert torch.allclose(cov, model.users.cov[u], atol=.02)
    assert np.mean(off) < .05
    nothing, nobody = model.fold_in([], [])
    assert nothing.isfinite().all() and nobody.trace() > cov.trace()
    with pytest.raises(NotInModel): model.given_part([1], {'age': 20})


def test_it_repeats_to_the_bit_and_comes_back_as_it_was(tmp_path):
    dls = loaders(world())
    model, again = fitted(dls, 4), fitted(dls, 4)
    for k, v in model.state_dict().items(): assert torch.equal(v, again.state_dict()[k]), k
    x = with_times(dls.valid_ds)
    twin, rebuilt = copy.deepcopy(model), rebuild(*kind_of(model))
    rebuilt.load_state_dict(model.state_dict())
    rec = Recommender.from_learner(Learner(dls, model))
    loaded = Recommender.load(rec.save(tmp_path/'rec'))
    for other in (twin, rebuilt, loaded.model):
        assert torch.equal(other.probabilities(x), model.probabilities(x))
        assert torch.equal(other(x), model(x)) and torch.equal(other.uncertainty(x), model.uncertainty(x))
        assert torch.equal(other.fold_in([1, 5], [4, 2])[0], model.fold_in([1, 5], [4, 2])[0])
    pairs = [(3, 5), (4, 7)]
    assert np.array_equal(loaded.predict(pairs), rec.predict(pairs))


def test_a_recommender_works_with_it(tmp_path):
    dls = loaders(world())
    rec = Recommender.from_learner(Learner(dls, fitted(dls, 4)))
    again = Recommender.load(rec.save(tmp_path/'rec'))
    for by in ('mean', 'sure', 'curious'):
        got = rec.recommend([3, 4], 5, by=by)
        assert got.equals(again.recommend([3, 4], 5, by=by))
        assert got.predicted.between(1, 5).all() and (got.sd > 0).all()
        new = rec.recommend_new({3: 5, 7: 1, 9: 4}, 9, by=by)
        assert new.equals(again.recommend_new({3: 5, 7: 1, 9: 4}, 9, by=by))
        assert new.predicted.between(1, 5).all() and new.sd.between(.1, 2).all()
        if by == 'mean': assert new.predicted.is_monotonic_decreasing
    assert not rec.recommend_new({3: 5}, 9, by='curious').equals(rec.recommend_new({3: 5}, 9, by='mean'))
    question = rec.next_question({3: 5}, 3)
    assert question.narrows.between(0, 1).all() and 3 not in question['item'].tolist()
    # of a person who is known, the same as of somebody new with their ratings, nearly
    known = dls.train_ds.x[:, 0] == 7
    titles = [dls.classes['item'][i] for i in dls.train_ds.x[known, 1].tolist()]
    as_new = rec.predict_new(dict(zip(titles, dls.train_ds.y[known].flatten().tolist())))
    user = dls.classes['user'][7]
    items = list(dls.classes['item'])[1:]
    as_known = rec.predict([(user, item) for item in items])
    assert np.abs(as_new - as_known).mean() < .1
    sd_known = rec.uncertainty([(user, item) for item in items])
    rated, stars = rec._new_ratings(dict(zip(titles, dls.train_ds.y[known].flatten().tolist())))
    sd_new = rec._new_sd(rated, stars, None, torch.arange(1, len(rec.items)))
    assert np.abs(sd_new.numpy() - sd_known).mean() < .05
    later = rec.update(pd.DataFrame(dict(user=[9999]*3, item=[1, 2, 3], rating=[2., 3, 4])))
    assert len(later.users) == len(rec.users) + 1 and np.isfinite(later.predict([(9999, 5)])).all()
    with pytest.raises(NotInModel, match='no page for a OrderedBayesianMF'):
        _model_part(rec, torch.arange(1, 9))


@pytest.mark.parametrize('rows', [
    [(1, 1, 4.)],
    [(1, 1, 4.), (1, 2, 4.), (2, 1, 4.)],
    [(1, k, 3.) for k in range(30)],
])
def test_a_single_star_is_one_clear_error(rows):
    dls = loaders(pd.DataFrame(rows, columns=['user', 'item', 'rating']), valid_idx=[])
    with pytest.raises(DataError, match='need from 2 to 50 different ratings, and the training rows have 1;'):
        OrderedBayesianMF.from_dls(dls)


def test_what_is_no_scale_and_what_is_no_level_are_refused():
    table = world()
    anything = table.assign(rating=table.rating + np.random.default_rng(0).random(len(table)))
    with pytest.raises(DataError, match='BayesianMF takes ratings of any kind'):
        OrderedBayesianMF.from_dls(loaders(anything))
    dls = loaders(table)
    model = OrderedBayesianMF.from_dls(dls, 2)
    with pytest.raises(DataError, match='is none of the levels 1, 2, 3, 4, 5 of the model'):
        model.fit(loaders(table.assign(rating=table.rating - .5)))
    model = OrderedBayesianMF.from_dls(dls, 2)
    few = loaders(table[table.rating != 3])                              # a level that nobody gave
    model.n_users, model.n_items = few.n_users, few.n_items
    p = OrderedBayesianMF(few.n_users, few.n_items, 2, seconds=()).fit(few).probabilities(few.valid_ds.x)
    assert p.isfinite().all() and (p > 0).all() and (p[:, 2] < .05).all()


@pytest.mark.parametrize('rows', [
    [(1, 1, 1.), (2, 1, 5.)],
    [(1, 1, 1.), (1, 2, 5.)],
    [(1, 1, 4.), (1, 2, 4.), (2, 1, 3.)],
    [(u, i, 1. + 4*(u == 3)) for u in range(9) for i in range(9)],
])
def test_tiny_and_clear_tables_get_sensible_answers(rows):
    table = pd.DataFrame(rows, columns=['user', 'item', 'rating']).assign(timestamp=7)
    dls = loaders(table, valid_idx=[])
    model = OrderedBayesianMF.from_dls(dls).fit(dls, 30)
    everything = torch.cartesian_prod(torch.arange(dls.n_users), torch.arange(dls.n_items))
    ratings, sd, p = model(everything), model.uncertainty(everything), model.probabilities(everything)
    assert ratings.isfinite().all() and sd.isfinite().all() and (sd >= 0).all() and p.isfinite().all()
    assert ratings.min() >= table.rating.min() and ratings.max() <= table.rating.max()


def test_a_failure_is_one_clear_error():
    dls = loaders(world(20, 12))
    model = OrderedBayesianMF.from_dls(dls, 2)
    sweeps = OrderedSweeps(model, dls.train_ds)
    model.items.mean[3] = float('nan')
    with pytest.raises(DataError, match='cannot be solved'): sweeps.sweep()


class AsBefore(Sweeps):
    "Sweeps in one piece, as they were before other kinds of ratings could be put in"
    def sweep(self):
        m, alpha = self.model, 1/self.model.noise_var.item()
        rest = self.y if self.sittings is None else self.y - self.sittings.offsets()
        self._side(m.users, m.items, self.by_user, self.smoothers[0], rest, alpha)
        total = self._side(m.items, m.users, self.by_item, self.smoothers[1], rest, alpha)
        total += self._of_user_biases(rest)
        if self.sittings is not None:
            total += self.sittings.total_variance()
            self.sittings.update(self.y - self._explained(), alpha)
        noise = max(total/len(self.y), 1e-4*self.variance)
        m.noise_var = self.y.new_tensor(noise)


@pytest.mark.parametrize('sittings', [True, False])
def test_the_seventh_model_is_to_the_bit_what_it_was(sittings):
    dls = loaders(world(offset=.5))
    now = BayesianMF.from_dls(dls, 4, sittings=sittings).fit(dls, 5)
    then = BayesianMF.from_dls(dls, 4, sittings=sittings)
    sweeps = AsBefore(then, dls.train_ds)
    ratings = dls.train_ds.y.flatten()
    assert torch.equal(sweeps.y, ratings - ratings.mean()) and torch.equal(then.mean_rating, ratings.mean())
    for _ in range(5): sweeps.sweep()
    sweeps.finish()
    for k, v in now.state_dict().items(): assert torch.equal(v, then.state_dict()[k]), k


@pytest.mark.cuda
def test_it_is_fitted_on_cuda_too():
    table = world()
    here = fitted(loaders(table), 4)
    dls = RatingsDataLoaders.from_df(table, seed=0, device='cuda')
    there = fitted(dls, 4)
    x = dls.valid_ds.x
    assert torch.allclose(there.probabilities(x.cuda()).cpu(), here.probabilities(x.cpu()), atol=.01)
    rec = Recommender.from_learner(Learner(dls, there))
    assert len(rec.recommend_new({3: 5, 7: 1}, 5, by='curious')) == 5
