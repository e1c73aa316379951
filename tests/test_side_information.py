"Labels of users and items, and who rated what."
import copy as copying, pickle
from dataclasses import replace

import numpy as np, pandas as pd, pytest, torch
from fastai.collab import *
from fastai.tabular.all import *

from conftest import parity, people
from collab_course.errors import DataError
from collab_course.dot_product import DotProductBias
from collab_course.labels import *
from collab_course.svdpp import *
from collab_course.errors import *
from collab_course.interface import *
from collab_course.testing import *
from collab_course.loaders import *
from collab_course.distributed import *
from collab_course.neural_net import CollabNN
from collab_course.training import recipes

R = (.5, 5.5)
MODELS = {
    'labels': lambda d: DotProductLabels(d.n_users, d.n_items, 4, R, [parity, people]),
    'labels, none': lambda d: DotProductLabels(d.n_users, d.n_items, 4, R),
    'net, sum': lambda d: LabelsNN((d.n_users, 10), (d.n_items, 12), R, 40, [parity, people]),
    'net, mean': lambda d: LabelsNN((d.n_users, 10), (d.n_items, 12), R, 40, [parity], 'mean'),
    'implicit': lambda d: SVDpp(d.n_users, d.n_items, 4, R, d.train_ds.x),
    'implicit, labels': lambda d: SVDpp(d.n_users, d.n_items, 4, R, d.train_ds.x, [parity, people]),
    'ensemble': lambda d: Ensemble(
        [DotProductBias(d.n_users, d.n_items, 4, R), CollabNN((d.n_users, 10), (d.n_items, 10), R, 40)]
    ),
}


# Label sets

@pytest.fixture
def small():
    ratings = pd.DataFrame(dict(user=[1, 2, 3, 1], item=['a', 'b', 'c', 'c'], rating=[1, 2, 3, 4]))
    return RatingsDataLoaders.from_df(ratings, valid_pct=.25, seed=0, bs=2)


def test_label_set(small):
    table = pd.DataFrame(dict(item=['c', 'a', 'b', 'a', 'z'], tags=['x| y ', 'y', None, 'w|', 'never']))
    s = label_set(small, table, 'tags')
    # of known items only, sorted
    assert (s.name, s.which, s.vocab) == ('tags', 'item', ['#na#', 'w', 'x', 'y'])
    # the union of two rows; blanks stripped; missing: none
    assert [s.of(k) for k in range(4)] == [[], ['w', 'y'], [], ['x', 'y']]
    assert (
        s.table.tolist() == [[0, 0], [1, 3], [0, 0], [2, 3]]
        and len(s) == 4
        and '3 labels for 3 items, at most 2 each' in repr(s)
    )
    ages = label_set(small, pd.DataFrame(dict(user=[1, 2, 3], age=[30, 5, 30])), 'age', 'user', name='years')
    assert (
        ages.vocab == ['#na#', 5, 30]
        and ages.name == 'years'
        and ages.of(1) == [30]
        and isinstance(ages.vocab[1], int)
    )
    lists = label_set(
        small, pd.DataFrame(dict(id=['a', 'b', 'c'], l=[['p', 'q'], set(), ('q',)])), 'l', on='id'
    )
    assert [lists.of(k) for k in (1, 2, 3)] == [['p', 'q'], [], ['q']]
    assert label_set(
        small, pd.DataFrame(dict(item=['a', 'b', 'c'], t=['p|q', 'p', 'q'])), 't', sep=None
    ).vocab == ['#na#', 'p', 'p|q', 'q']


def test_labels_of_other_kinds(small):
    table = pd.DataFrame(dict(item=['a', 'b', 'c'], l=[np.array([1, 2]), [np.int64(2), None], (True, 'x')]))
    s = label_set(small, table, 'l')
    # one set needs no list
    assert (
        s.of(2) == [2]
        and all(type(l) in (str, int, bool) for l in s)
        and kind_of(DotProductLabels(4, 4, 2, labels=s))
    )
    with pytest.raises(DataError, match='a label is text or a number, not Timestamp'):
        label_set(small, table.assign(l=pd.Timestamp('2020')), 'l')


def test_models_do_not_share_a_table(small):
    s = label_set(small, pd.DataFrame(dict(item=['a', 'b', 'c'], t=['p', 'q', 'p|q'])), 't')
    a, b = DotProductLabels(4, 4, 2, labels=s), DotProductLabels(4, 4, 2, labels=s)
    a.load_state_dict({k: torch.zeros_like(v) for k, v in a.state_dict().items()})
    assert (
        not a.label_factors[0].table.any()
        and torch.equal(b.label_factors[0].table, s.table)
        and s.of(3) == ['p', 'q']
    )


def test_unusable_label_sets(small):
    table = pd.DataFrame(dict(item=['a', 'b', 'c'], tags=['x', 'y', 'x']))
    for kw, words, error in (
        (dict(labels='tag'), "no column 'tag'; it has", DataError),
        (dict(labels='tags', on='title'), "no column 'title'", DataError),
        (dict(labels='tags', which='film'), "which must be 'user' or 'item', not 'film'", ValueError),
        (dict(labels='tags', name='user'), 'cannot be called', ValueError),
    ):
        with pytest.raises(error, match=words): label_set(small, table, **kw)
    with pytest.raises(
        DataError,
        match="2 of 3 items in the ratings are not in column 'item' of the table of items, such as 'a', 'c'",
    ):
        label_set(small, table[1:2], 'tags')
    with pytest.raises(DataError, match='no label for any item'):
        label_set(small, table.assign(tags=None), 'tags')
    s = label_set(small, table, 'tags')
    with pytest.raises(DataError, match='are for 4 items, the model for 9: make them with the same loaders'):
        DotProductLabels(4, 9, 3, labels=[s])
    with pytest.raises(DataError, match='same name: tags, tags'): DotProductLabels(4, 4, 3, labels=[s, s])
    with pytest.raises(ValueError, match="'sum' or 'mean'"): LabelsNN((4, 3), (4, 3), labels=[s], pool='max')


def test_a_title_with_two_ids_takes_both(ml, dls):
    s = label_set(dls, ml.movies, 'genres')
    for title, rows in ml.movies[ml.movies.title.duplicated(keep=False)].groupby('title'):
        assert set(s.of(dls.classes['title'].o2i[title])) == set('|'.join(rows.genres).split('|'))
    assert len(s) == 20 and s.of(0) == [] and s.table.shape == (1665, 6)


@pytest.mark.parametrize('pool', ['sum', 'mean'])
def test_pooling_against_a_loop(pool):
    emb = LabelEmbedding(people, 5, pool)
    got = emb(torch.arange(21))
    for k in range(21):
        rows = [emb.emb.weight[people.vocab.index(l)] for l in people.of(k)]
        want = torch.stack(rows).sum(0)/(len(rows) if pool == 'mean' else 1) if rows else torch.zeros(5)
        assert torch.allclose(got[k], want, atol=1e-6)
    got.sum().backward()
    # nothing is learned for "no label"
    assert emb.emb.weight.grad[0].abs().sum() == 0 < emb.emb.weight.grad[1:].abs().sum()


def test_effective_factors_and_biases():
    torch.manual_seed(0)
    m = DotProductLabels(21, 21, 3, None, [parity, people])
    f = lambda name: (factors(m, name), biases(m, name))
    (u, bu), (i, bi), (p, _), (_, bq) = f('user'), f('item'), f('people'), f('parity')
    assert u.shape == i.shape == (21, 3) and p.shape == (3, 3) and bq.shape == (3,)
    assert torch.allclose(u[1], m.user_factors.weight[1] + p[1] + p[2]) and torch.allclose(
        bi[2], m.item_biases.weight[2, 0] + bq[2]
    )
    assert torch.allclose(score(m, 1, 2), u[1] @ i[2] + bu[1] + bi[2])
    assert torch.allclose(u[0], m.user_factors.weight[0])  # the unknown user has no labels
    with pytest.raises(ValueError, match="'user' or 'item' or 'parity' or 'people', not 'genre'"):
        factors(m, 'genre')
    net = LabelsNN((21, 3), (21, 4), labels=[parity])
    assert factors(net, 'parity').shape[0] == 3
    with pytest.raises(NotInModel): biases(net, 'parity')


def test_labels_help_where_there_are_no_ratings():
    "Items never rated in training, whose label says everything"
    rng = np.random.default_rng(0)
    ratings = pd.DataFrame(
        [(u, i, 5.0 if i % 2 else 1.0) for u in range(40) for i in rng.choice(60, 20, replace=False)],
        columns=['user', 'item', 'rating'],
    )
    new = ratings['item'] >= 50
    dls = RatingsDataLoaders.from_df(ratings, valid_idx=np.flatnonzero(new), bs=64, seed=0)
    s = label_set(dls, pd.DataFrame(dict(item=range(60), kind=['even', 'odd']*30)), 'kind')
    def error(*labels):
        set_seed(0)
        learn = Learner(dls, DotProductLabels(dls.n_users, dls.n_items, 4, R, labels))
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(20, .02, wd=.1)
        return learn.recorder.values[-1][1]
    assert error(s) < .5 < 2 < error()


def test_rebuilt_with_its_table():
    m = MODELS['labels'](checkerboard())
    name, args = kind_of(m)
    fresh = rebuild(name, args)
    assert not fresh.label_factors[0].table.any()
    fresh.load_state_dict(m.state_dict())
    assert torch.equal(fresh.label_factors[0].table, parity.table) and kind_of(fresh) == (name, args)


# Who rated what

pairs = torch.tensor([[1, 1], [1, 2], [2, 2], [1, 2], [3, 1]])              # one pair twice


def test_sums_against_a_loop():
    torch.manual_seed(0)
    m = SVDpp(5, 4, 3, None, pairs)
    assert m.pairs.tolist() == [[1, 1], [1, 2], [2, 2], [3, 1]]
    w, sums = m.implicit.weight, m.sums()
    z, y = w[:5], w[5:]
    assert (
        torch.allclose(sums[1], (y[1] + y[2]) / 2**0.5, atol=1e-6)
        and torch.allclose(sums[2], y[2], atol=1e-6)
        and not sums[[0, 4, 5, 8]].any()
    )
    assert torch.allclose(sums[5 + 1], (z[1] + z[3]) / 2**0.5, atol=1e-6) and torch.allclose(
        sums[5 + 2], (z[1] + z[2]) / 2**0.5, atol=1e-6
    )
    u, i = factors(m, 'user'), factors(m)
    assert torch.allclose(u[1], m.user_factors.weight[1] + sums[1, :3], atol=1e-6) and torch.allclose(
        biases(m)[2], m.item_biases.weight[2, 0] + sums[7, 3], atol=1e-6
    )
    assert torch.allclose(score(m, 1, 2), u[1] @ i[2] + biases(m, 'user')[1] + biases(m)[2], atol=1e-6)


def test_gradient_of_the_sums():
    S, S_t = neighbours_matrix(pairs.unique(dim=0), 5, 4)
    assert torch.allclose(S.to_dense().T, S_t.to_dense())
    m = SVDpp(5, 4, 3, None, pairs)
    m(torch.tensor([[1, 2], [4, 3]])).pow(2).sum().backward()
    sparse, m.implicit.weight.grad = m.implicit.weight.grad.clone(), None
    dense = S.to_dense() @ m.implicit.weight
    m.sums = lambda: dense
    m(torch.tensor([[1, 2], [4, 3]])).pow(2).sum().backward()
    assert torch.allclose(m.implicit.weight.grad, sparse, atol=1e-6) and sparse.abs().sum() > 0


def test_only_training_pairs_enter(ml):
    """Validation pairs that are others change no prediction: of an untrained model, nor of one trained for
    an epoch"""
    rows = np.array(RandomSplitter(seed=0)(ml.ratings)[1])
    other = ml.ratings.copy()
    other.loc[rows, 'title'] = other.loc[rows, 'title'].sample(frac=1, random_state=0).values
    other.loc[rows, 'rating'] = 3
    recipe = replace(svdpp_recipe, n_epoch=1, n_factors=4)
    def scores(ratings):
        dls = RatingsDataLoaders.from_df(ratings, item_name='title', rating_name='rating', seed=0)
        learn = svdpp_learner(dls, side_labels(dls, ml), recipe=recipe)
        before = score(learn.model, torch.arange(50)[:, None], torch.arange(1665))
        with learn.no_bar(), learn.no_logging(): recipe.fit(learn)
        return dls.classes['title'], before, score(learn.model, torch.arange(50)[:, None], torch.arange(1665))
    (v, *here), (w, *there) = scores(ml.ratings), scores(other)
    assert list(v) == list(w) and all(torch.equal(a, b) for a, b in zip(here, there))


def test_matrix_follows_the_pairs():
    m = SVDpp(5, 4, 3, None, pairs)
    old = m.sums()
    other = SVDpp(5, 4, 3, None, torch.tensor([[4, 3], [4, 2], [2, 2], [3, 1]]))
    other.load_state_dict(m.state_dict())
    # loaded after its own matrix was made, or before
    assert torch.equal(other.sums(), old)
    m.sums()
    theirs = SVDpp(5, 4, 3, None, torch.tensor([[4, 3], [4, 2], [2, 2], [3, 1]])).state_dict()
    m.load_state_dict({k: theirs[k] if k.startswith('history.') else v for k, v in m.state_dict().items()})
    assert not torch.equal(m.sums(), old) and m.sums()[4].any()
    for again in (pickle.loads(pickle.dumps(m)), copying.deepcopy(m)):
        assert torch.equal(again.sums(), m.sums())
    assert not SVDpp(5, 4, 3).sums().any()                      # without pairs: model 4


def test_unusable_pairs():
    for bad, words in (
        (pairs.float(), 'integer indices'),
        (pairs[:, :1], r'\(n, 2\)'),
        (pairs + 3, 'rows for 5 and 4'),
        (pairs - 2, 'rows for 5 and 4'),
    ):
        with pytest.raises(DataError, match=words): SVDpp(5, 4, 3, None, bad)


def test_other_precisions():
    m = SVDpp(5, 4, 3, None, pairs)
    want = m.sums()
    for dtype in (torch.float64, torch.bfloat16):
        other = copying.deepcopy(m).to(dtype)
        assert (
            other.sums().dtype == dtype
            and torch.allclose(other.sums().float(), want, atol=1e-2)
            and other(pairs).dtype == dtype
        )
    with torch.autocast('cpu', dtype=torch.bfloat16): m(pairs).float().sum().backward()
    assert m.implicit.weight.grad.isfinite().all() and m.implicit.weight.grad.abs().sum() > 0
    with torch.inference_mode(): assert torch.equal(SVDpp(5, 4, 3, None, pairs).pairs, m.pairs)
    for given in (pairs.numpy(), pairs.tolist()):
        assert torch.equal(SVDpp(5, 4, 3, None, given).pairs, m.pairs)


@pytest.mark.cuda
def test_the_sixth_model_in_half_precision(dls):
    learn = Learner(
        RatingsDataLoaders.from_df(dls.train_ds.items, seed=0, device='cuda'),
        SVDpp(dls.n_users, dls.n_items, 8, pairs=dls.train_ds.x),
    ).to_fp16()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 5e-3)
    assert np.isfinite(learn.recorder.values[-1][1])


@pytest.mark.cuda
def test_the_matrix_moves_to_cuda():
    m = SVDpp(5, 4, 3, None, pairs)
    cpu = m.sums()
    assert torch.allclose(m.cuda().sums().cpu(), cpu, atol=1e-6) and torch.allclose(
        m.cpu().sums(), cpu, atol=1e-6
    )


def test_ensemble(small):
    learns = {s: Learner(small, DotProductBias(small.n_users, small.n_items, 3)) for s in range(3)}
    e = ensemble(lambda seed: learns[seed], range(3))
    x = torch.tensor([[1, 1], [2, 3]])
    assert torch.allclose(
        score(e, x[:, 0], x[:, 1]),
        torch.stack([score(l.model, x[:, 0], x[:, 1]) for l in learns.values()]).mean(0),
        atol=1e-6,
    )

    class Logits(DotProductBias):
        def to_rating(self, out): return out*0 + 2.
    both = Ensemble([Logits(5, 4, 3), Logits(5, 4, 3)])
    assert torch.equal(score(both, [1, 2], 1), torch.tensor([2., 2.])) and sizes(both) == (5, 4)
    for models, words in (
        ([], 'at least one'),
        ([nn.Linear(2, 1)], 'does not say for how many users and items'),
        ([DotProductBias(5, 4, 3), DotProductBias(5, 5, 3)], 'different users or items'),
    ):
        with pytest.raises(ValueError, match=words): Ensemble(models)
    with pytest.raises(NotInModel): factors(e)


def test_the_sixth_model_on_real_ratings(ml, dls):
    "What the chapter claims of split 0"
    learn = svdpp_learner(dls, side_labels(dls, ml))
    with learn.no_bar(), learn.no_logging(): svdpp_recipe.fit(learn)
    assert .76 < learn.recorder.values[-1][1] <= .778


def test_genres_on_ml_latest_small(latest):
    dls = RatingsDataLoaders.from_df(latest.ratings, item_name='title', rating_name='rating', seed=0)
    genre = label_set(dls, latest.movies, 'genres', name='genre')
    # 20 names, '(no genres listed)' among them
    assert len(genre) == 21
    mse = {}
    for name, model in (
        ('without', lambda u, i: DotProductBias(u, i, 50)),
        ('with', lambda u, i: DotProductLabels(u, i, 50, labels=[genre])),
        ('net', lambda u, i: LabelsNN((u, emb_sz_rule(u)), (i, emb_sz_rule(i)), labels=[genre])),
    ):
        learn = recipes['fast'].learner(dls, model)
        with learn.no_bar(), learn.no_logging(): recipes['fast'].fit(learn)
        mse[name] = learn.recorder.values[-1][1]
    assert mse['without'] <= .72 and mse['with'] <= mse['without'] - .02 and mse['net'] <= .76


def test_the_sixth_model_on_ml_latest_small(latest):
    dls = RatingsDataLoaders.from_df(latest.ratings, item_name='title', rating_name='rating', seed=0)
    labels = side_labels(dls, latest)
    assert [l.name for l in labels] == ['genre', 'year']                     # nobody there tells their age
    learn = svdpp_learner(dls, labels)
    with learn.no_bar(), learn.no_logging(): svdpp_recipe.fit(learn)
    assert learn.recorder.values[-1][1] < .66
