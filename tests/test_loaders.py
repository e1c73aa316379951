"Batches out: each row once, one vocabulary, and everything that fastai's users are used to."
import random, warnings

import numpy as np, pandas as pd, pytest, torch
from fastai.collab import *
from fastai.callback.all import *
from fastai.tabular.all import *

from collab_course.errors import DataError
from collab_course.synthetic import synthetic_ratings
from collab_course.loaders import *
from collab_course.distributed import *

BOOK = dict(item_name='title', rating_name='rating')


@pytest.fixture(scope='module')
def few():
    "2,000 synthetic ratings with text ids, whole stars"
    r = synthetic_ratings(60, 40, 2_000, seed=1).ratings
    return pd.DataFrame(
        {
            'user': 'u' + r.user.astype(str),
            'item': 'i' + r['item'].astype(str),
            'rating': r.rating.round().clip(1, 5).astype(int),
        }
    )


@pytest.fixture
def small(few): return RatingsDataLoaders.from_df(few, seed=0, bs=64)


def trained(dls, **kw):
    set_seed(0)
    learn = collab_learner(dls, n_factors=8, y_range=(0, 5.5), **kw)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, .02)
    return learn


def epoch(dls): return torch.cat([torch.cat([x, y.long()], 1) for x, y in dls.train])     # (rows, 3)


# rows and order

@pytest.mark.parametrize('n, bs', [(100, 32), (97, 32), (96, 32), (65, 32), (33, 32), (5, 8), (1, 8), (2, 1)])
def test_each_row_once(few, n, bs):
    dls = RatingsDataLoaders.from_df(few.head(n), valid_pct=0, bs=bs, seed=0)
    sizes = [len(x) for x, y in dls.train]
    assert sum(sizes) == n and len(sizes) == len(dls.train)
    # BatchNorm cannot take a batch of one row
    assert n == 1 or bs == 1 or min(sizes) > 1
    ds = dls.train_ds
    everything = torch.cat([ds.x, ds.y.long()], 1)
    for _ in range(2):
        assert sorted(map(tuple, epoch(dls).tolist())) == sorted(map(tuple, everything.tolist()))


def test_order_is_the_loaders_own(few):
    def two(seed, disturb=lambda d: None):
        dls, res = RatingsDataLoaders.from_df(few, seed=seed), []
        for _ in range(2): disturb(dls); res.append(epoch(dls))
        return torch.stack(res)
    def disturb(dls):
        np.random.rand(3)
        torch.rand(3)
        random.random()
        dls.one_batch()
        dls.show_batch(show=False)
        dls.train.get_idxs()
        dls.valid.one_batch()

    a = two(5)
    assert torch.equal(a, two(5, disturb)) and not torch.equal(a[0], a[1]) and not torch.equal(a, two(6))
    torch.manual_seed(0); state = torch.get_rng_state()
    dls = RatingsDataLoaders.from_df(few, seed=5)
    epoch(dls); assert torch.equal(torch.get_rng_state(), state)      # and it moves nobody else's generator


def test_training_twice_gives_the_same(few):
    losses = [trained(RatingsDataLoaders.from_df(few, seed=0)).recorder.values for _ in range(2)]
    assert losses[0] == losses[1]


def test_looking_shows_something_else(small):
    assert not torch.equal(small.one_batch()[0], small.one_batch()[0])


# vocabulary and splits

def test_vocabulary_of_the_originals(ml):
    for dtype in (object, 'string', 'category', 'str'):
        dls = RatingsDataLoaders.from_df(ml.ratings.astype({'title': dtype}), seed=0, **BOOK)
        assert (len(dls.classes['user']), len(dls.classes['title'])) == (944, 1665)
        assert dls.classes['title'][:2] == ['#na#', "'Til There Was You (1997)"]
        assert get_emb_sz(dls) == [(944, 74), (1665, 102)]


def test_same_split_and_codes_as_fastai(ml):
    "The drop-in holds the same validation rows and the same numbers as the stock loaders"
    stock = CollabDataLoaders.from_df(
        ml.ratings.astype({'title': object}), seed=7, dl_type=TabDataLoader, **BOOK
    )
    ours = RatingsDataLoaders.from_df(ml.ratings, seed=7, **BOOK)
    assert (stock.valid_ds.items[['user', 'title']].to_numpy() == ours.valid_ds.x.numpy()).all()
    assert (stock.valid_ds.items['rating'].to_numpy() == ours.valid_ds.y[:, 0].numpy()).all()
    assert list(stock.classes['title']) == list(ours.classes['title'])


def test_train_vocabulary(few):
    df = pd.concat([few, pd.DataFrame(dict(user=['new'], item=['new'], rating=[3]))], ignore_index=True)
    dls = RatingsDataLoaders.from_df(df, valid_idx=[len(df) - 1, 0], vocab='train')
    assert (
        'new' not in dls.classes['user'].o2i
        and dls.valid_ds.x[0].tolist() == [0, 0]
        and dls.valid_ds.x[1].min() > 0
    )
    assert 'new' in RatingsDataLoaders.from_df(df, valid_idx=[len(df) - 1]).classes['item'].o2i


def test_ids_of_every_kind():
    df = pd.DataFrame(
        dict(
            u=[3, 'x', 3, 'y'],
            i=pd.to_datetime(['2020-01-01', '2021-01-01', '2020-01-01', '2022-01-01']),
            r=[1, 2, 3, 4],
        )
    )
    dls = RatingsDataLoaders.from_df(df, valid_pct=0)
    assert (
        dls.n_users == 4
        and dls.n_items == 4
        and dls.train.decode(dls.one_batch()).u.isin([3, 'x', 'y']).all()
    )


def test_splitters(few):
    n = len(few)
    dls = RatingsDataLoaders.from_df(few, splitter=EndSplitter(valid_pct=.25))
    assert len(dls.valid_ds) == n//4
    by_column = few.assign(is_valid=np.arange(n) < 10)
    assert len(RatingsDataLoaders.from_df(by_column, splitter=ColSplitter('is_valid')).valid_ds) == 10
    assert len(RatingsDataLoaders.from_df(few, splitter=RandomSplitter(.1, seed=3)).valid_ds) == n//10
    for idx in ([3, 1], np.array([3, 1]), torch.tensor([3, 1]), pd.Index([3, 1])):
        dls = RatingsDataLoaders.from_df(few, valid_idx=idx)
        assert (
            len(dls.train_ds) == n - 2
            and dls.valid.decode(dls.valid.one_batch()).user.tolist() == few.user[[3, 1]].tolist()
        )
    part = RatingsDataLoaders.from_df(few, splitter=lambda df: (range(5), range(5, 9)))
    assert (len(part.train_ds), len(part.valid_ds)) == (5, 4)


@pytest.mark.parametrize(
    'kw, words',
    [
        (dict(valid_idx=[0, 5_000]), 'from 0 to'),
        (dict(valid_idx=[-1]), 'from 0 to'),
        (dict(valid_idx=[1, 1]), 'used twice'),
        (dict(splitter=lambda df: ([0, 1], [1])), 'used twice'),
        (dict(splitter=RandomSplitter(), valid_idx=[1]), 'not both'),
        (dict(valid_pct=1.0), 'valid_pct'),
        (dict(valid_idx=range(2_000)), 'no row is left'),
        (dict(vocab='some'), 'vocab must be'),
        (dict(user_name='who'), "no column 'who'"),
        (dict(item_name='user'), 'three columns'),
        (dict(bs=0), 'batch size'),
        (dict(dl_type=TabDataLoader), 'derived from it'),
        (dict(valid_idx=[0.9, 1.7]), 'whole numbers'),
        (dict(valid_idx=[True, False]), 'one value for each'),
        (dict(dl_kwargs=[{}]), 'two dicts'),
        (dict(before_batch=noop), 'use after_batch'),
        (dict(val_after_item=noop), 'use after_batch'),
    ],
)
def test_bad_arguments(few, kw, words):
    with pytest.raises(DataError, match=words): RatingsDataLoaders.from_df(few, **kw)


@pytest.mark.parametrize(
    'change, words',
    [
        (
            lambda d: d.assign(rating=d.rating.where(d.index != 4)),
            r"'rating': 1 of 2000 values not a finite number, first row 4 \(nan\)",
        ),
        (
            lambda d: d.assign(rating=d.rating.astype(object).where(d.index != 4, 'x')),
            "first row 4 \\('x'\\)",
        ),
        (
            lambda d: d.assign(user=d.user.where(d.index != 4)),
            "'user': 1 of 2000 ids are missing, first in row 4",
        ),
        (lambda d: d.assign(item='#na#'), "stands for the unknown"),
        (lambda d: d.head(0), 'empty'),
        (lambda d: d[['user', 'item']], 'three columns'),
    ],
)
def test_bad_ratings(few, change, words):
    with pytest.raises(DataError, match=words): RatingsDataLoaders.from_df(change(few))


def test_other_parameters(few, tmp_path):
    dls = RatingsDataLoaders.from_df(
        few,
        bs=32,
        val_bs=16,
        shuffle=False,
        val_shuffle=True,
        drop_last=True,
        path=tmp_path,
        seed=0,
        num_workers=4,
        device='cpu',
    )
    assert (dls.train.bs, dls.valid.bs, dls.path) == (32, 16, tmp_path) and dls.train.fake_l.num_workers == 0
    assert torch.equal(epoch(dls), epoch(dls)) and [len(x) for x, y in dls.train] == [32]*50
    assert not torch.equal(next(iter(dls.valid))[0], next(iter(dls.valid))[0])
    assert len(RatingsDataLoaders.from_df(few, n=100, bs=10).train) == 10
    seen = []
    dls = RatingsDataLoaders.from_df(
        few, after_batch=lambda b: (seen.append(1), b)[1], dl_kwargs=[{'bs': 7}, {}]
    )
    assert len(dls.one_batch()[0]) == 7 and seen
    assert not RatingsDataLoaders.from_df(few, shuffle_train=False).train.shuffle
    assert [len(d.dataset) for d in RatingsDataLoaders.from_df(few, val_n=10)] == [
        1600,
        400,
    ] and RatingsDataLoaders.from_df(few, val_n=10).valid.n == 10
    assert RatingsDataLoaders.from_df(few, dl_kwargs=[{'n': 10}, {}]).train.n == 10
    mask = np.arange(len(few)) < 7
    assert len(RatingsDataLoaders.from_df(few, valid_idx=mask).valid_ds) == 7
    few.to_csv(tmp_path/'r.csv', index=False)
    a, b = (
        RatingsDataLoaders.from_csv(tmp_path / 'r.csv', seed=0, bs=32),
        RatingsDataLoaders.from_df(few, seed=0, bs=32),
    )
    assert torch.equal(epoch(a), epoch(b)) and isinstance(a, CollabDataLoaders)


def test_y_range(small, few):
    assert small.y_range == (.5, 5.5)
    halves = RatingsDataLoaders.from_df(few.assign(rating=few.rating/2), seed=0)
    assert halves.y_range == (.25, 2.75)
    assert RatingsDataLoaders.from_df(few.assign(rating=3), seed=0).y_range == (2.5, 3.5)
    low, high = (d := RatingsDataLoaders.from_df(synthetic_ratings(60, 40, 2_000).ratings, seed=0)).y_range
    y = d.train_ds.y; assert low < y.min() - .01 and high > y.max() + .01     # continuous: there is no step
    assert halves.new_empty().y_range == (.25, 2.75)                          # known after an export, too


def test_other_indices(small):
    "A loader that is given its rows makes batches of those, no more"
    assert [len(x) for x, y in small.valid.new(get_idxs=lambda: [0, 1, 2])] == [3]
    assert [len(x) for x, y in small.train.new(get_idxs=lambda: list(range(130))*2)] == [64]*4 + [4]


def test_looking_at_many_rows_is_cheap(few):
    many = RatingsDataLoaders.from_df(few, valid_pct=0, seed=0)
    x, y = many.one_batch()
    assert len(x) == 64 and len(set(map(tuple, x.tolist()))) > 60


# what fastai's users do

def test_show(small, capsys):
    shown = small.show_batch(show=False, max_n=4)
    assert (
        shown.columns.tolist() == ['user', 'item', 'rating']
        and len(shown) == 4
        and shown.rating.dtype.kind == 'i'
    )
    assert small.show_batch(show=False, unique=True).duplicated().sum() == 9
    assert len(small.show_batch(show=False)) == 10                           # as many as stock shows
    small.show_batch(); trained(small).show_results()
    learn = trained(small)
    # fastai shows other rows each time
    assert (
        not small.valid.new(shuffle=True).one_batch()[0].equal(small.valid.new(shuffle=True).one_batch()[0])
    )
    res = small.valid.show_results(b := small.valid.one_batch(), learn.model(b[0]), show=False, max_n=5)
    assert (
        res.columns.tolist() == ['user', 'item', 'rating', 'rating_pred']
        and len(res) == 5
        and '#na#' not in res.to_numpy()
    )


def test_one_batch(small):
    x, y = small.one_batch()
    assert x.shape == (64, 2) and x.dtype == torch.int64 and y.shape == (64, 1) and y.dtype == torch.float32


@pytest.mark.parametrize(
    'kw', [dict(), dict(use_nn=True, layers=[20, 10]), dict(use_nn=True, emb_szs={'user': 5, 'item': 6})]
)
def test_collab_learner(small, kw):
    learn = trained(small, metrics=[rmse, mae], **kw)
    losses = learn.validate()
    assert losses[0] < 2 and abs(losses[1]**2 - losses[0]) < 1e-4
    preds, targs = learn.get_preds()
    assert abs(((preds.flatten() - targs.flatten())**2).mean() - losses[0]) < 1e-4
    assert torch.equal(targs, small.valid_ds.y)


def test_plain_learner_needs_no_loss(small):
    learn = Learner(small, EmbeddingDotBias.from_classes(4, small.classes, y_range=small.y_range))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, .01)
    assert learn.loss_func is mse_flat
    p, t = torch.randn(6), torch.randn(6, 1)
    for r in ('mean', 'sum', 'none'):
        assert torch.allclose(
            mse_flat(p, t, reduction=r),
            ((p - t[:, 0]) ** 2) if r == 'none' else getattr((p - t[:, 0]) ** 2, r)(),
        )


def test_get_preds_of_training_rows_in_order(small):
    learn = trained(small)
    for kw in (dict(ds_idx=0), dict(dl=small.train), dict(dl=small.train.new(shuffle=False))):
        preds, targs = learn.get_preds(**kw)
        assert torch.equal(targs, small.train_ds.y) and len(preds) == 1600
    loss = learn.get_preds(with_loss=True)[2]
    assert loss.shape == (400,) and abs(loss.mean() - learn.validate()[0]) < 1e-4


def test_interpretation(small):
    top = Interpretation.from_learner(trained(small)).top_losses(3)
    assert top[0][0] >= top[0][2] and len(top[1]) == 3
    interp = Interpretation.from_learner(trained(small))
    losses, idx, rows = interp.top_losses(3, items=True)
    assert rows.columns.tolist() == ['user', 'item', 'rating'] and torch.allclose(interp[idx][-1], losses)
    interp.show_results([0, 1])


@pytest.mark.parametrize('k', [3, range(2)])
def test_plot_top_losses_shows_a_table(small, k, monkeypatch):
    shown = []
    monkeypatch.setattr('collab_course.loaders.display_df', shown.append)
    interp = Interpretation.from_learner(trained(small))
    losses, rows = interp.top_losses(len(k) if isinstance(k, range) else k)
    interp.plot_top_losses(k)
    [table] = shown
    assert table.columns.tolist() == ['user', 'item', 'rating', 'rating_pred', 'loss']
    assert np.allclose(table.loss, losses) and np.allclose(
        (table.rating - table.rating_pred) ** 2, losses, rtol=1e-3
    )
    assert table.user.tolist() == small.valid_ds.items.user.iloc[rows.tolist()].tolist()


def test_the_tables_that_stock_loaders_have(few):
    stock = CollabDataLoaders.from_df(
        few.astype({'user': object, 'item': object}), seed=0, dl_type=TabDataLoader
    )
    ours = RatingsDataLoaders.from_df(few, seed=0)
    for part in (0, 1):
        for name in ('xs', 'ys', 'cats', 'conts', 'targ'):
            want, got = (getattr(dls[part], name).reset_index(drop=True) for dls in (stock, ours))
            pd.testing.assert_frame_equal(want, got, check_dtype=False, check_column_type=False)
    assert ours.xs.equals(ours.train.xs) and list(ours.x_names) == list(stock.x_names)
    assert ours.procs.classes == stock.procs.classes == ours.classes
    # without reduce_memory, for that turns text into categories of these three rows first
    codes = TabularPandas(few.head(3), ours.procs, ['user', 'item'], do_setup=False, reduce_memory=False)
    codes.process()
    assert (codes.xs.to_numpy() == ours.train_ds.encode(few.head(3)).x.numpy()).all()
    assert ours.test_dl(few[['user', 'item']].head(3)).ys.shape == (3, 0)


def test_names_of_several_kinds_are_named():
    rows = pd.DataFrame(dict(user=[9, 'guest']*4, item=[1, 2]*4, rating=[1, 2, 3, 4]*2))
    dls = RatingsDataLoaders.from_df(rows, valid_pct=0)
    with pytest.warns(UserWarning, match='the vocabulary holds ints and strs'):
        dls.test_dl([dict(user='9', item=1)])


def test_a_dollar_in_a_shown_table_begins_no_formula(few, monkeypatch):
    shown = []
    monkeypatch.setattr('collab_course.loaders.display_df', lambda df: shown.append(df.to_html()))
    RatingsDataLoaders.from_df(few.assign(item='Ca$h & Ke$ha <b>'), seed=0).show_batch()
    assert 'Ca$h &amp; Ke$ha &lt;b&gt;' in shown[0] and 'mathjax_ignore' in shown[0]


def test_new_rows(small):
    learn = trained(small)
    rows = pd.DataFrame(dict(item=['i1', 'i2', 'nobody saw it'], user=['u1', 'stranger', 'u2'], other=1))
    dl = small.test_dl(rows)
    assert (
        dl.dataset.x[1, 0] == 0
        and dl.dataset.x[2, 1] == 0
        and dl.dataset.x[0].min() > 0
        and dl.dataset.y is None
    )
    preds, targs = learn.get_preds(dl=dl)
    assert len(preds) == 3 and targs is None and preds.isfinite().all()
    with_y = small.test_dl(rows.assign(rating=[1, 2, 3]))
    assert learn.get_preds(dl=with_y)[1].flatten().tolist() == [1, 2, 3] and learn.validate(dl=with_y)[0] > 0
    assert small.test_dl(rows.assign(rating=[1, 2, 3]), with_labels=False).dataset.y is None
    with pytest.raises(DataError, match="no column 'item'"): small.test_dl(rows[['user']])
    with pytest.raises(DataError, match='not a finite number'):
        small.test_dl(rows.assign(rating=[1, None, 3]))
    with pytest.warns(UserWarning, match="none of the 2 different values of 'user' is known, such as 1"):
        small.test_dl([dict(user=1, item='i1'), dict(user=2, item='i2')])
    assert len(small.test_dl(rows, bs=1)) == 3


def test_predict(small):
    learn = trained(small)
    want = learn.get_preds(dl=small.test_dl(pd.DataFrame(dict(user=['u1'], item=['i2']))))[0].item()
    for row in (
        dict(user='u1', item='i2'),
        pd.Series(dict(user='u1', item='i2')),
        pd.Series(dict(item='i2', user='u1', rating=4)),
    ):
        target, decoded, raw = learn.predict(row)
        assert abs(float(target) - want) < 1e-5 and abs(float(raw) - want) < 1e-5
    assert learn.predict(dict(user='u1', item='i2'), with_input=True)[0] == ('u1', 'i2')


def test_export_holds_no_ratings(small, tmp_path):
    learn = trained(small)
    want = learn.predict(dict(user='u1', item='i2'))[0]
    learn.path = tmp_path
    learn.export('a.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore'); back = load_learner(tmp_path/'a.pkl')
    assert len(back.dls.train_ds) == len(back.dls.valid_ds) == 0 and len(back.dls.train_ds.y) == 0
    assert abs(back.predict(dict(user='u1', item='i2'))[0] - want) < 1e-6
    assert len(learn.dls.train_ds) == 1600  # and the learner still has its own
    big = RatingsDataLoaders.from_df(
        synthetic_ratings(60, 40, 2_400).ratings.merge(pd.DataFrame({'k': range(50)}), how='cross'), seed=0
    )
    learn = collab_learner(big, n_factors=8, path=tmp_path); learn.export('b.pkl')
    # 120,000 ratings would be over two million bytes
    assert (tmp_path/'b.pkl').stat().st_size < 200_000


def test_save_and_load(small, tmp_path):
    learn = trained(small); learn.path = tmp_path
    before = learn.get_preds()[0]
    learn.save('m'); learn.model.u_weight.weight.data.zero_(); learn.load('m')
    assert torch.equal(learn.get_preds()[0], before)


def test_fine_tune_lr_find_and_callbacks(small, tmp_path):
    learn = collab_learner(small, n_factors=8, y_range=(0, 5.5), path=tmp_path, metrics=rmse)
    with learn.no_bar(), learn.no_logging():
        assert learn.lr_find(show_plot=False).valley > 0
        learn.fine_tune(1, .01)
        stop = EarlyStoppingCallback(monitor='valid_loss', min_delta=10., patience=1)
        learn.fit_one_cycle(6, .01, cbs=[stop, SaveModelCallback(monitor='valid_loss', fname='best')])
    # stopped after the second of six epochs
    assert len(learn.recorder.values) == 2
    assert (tmp_path/'models'/'best.pth').exists()


def test_classes_and_devices(small):
    assert list(small.classes) == ['user', 'item'] and small.classes['user'][0] == '#na#'
    assert small.classes['user'].o2i[small.classes['user'][3]] == 3
    assert (
        small.n_inp == 1
        and small.c == 1
        and list(small.cat_names) == ['user', 'item']
        and len(small.cont_names) == 0
    )
    assert small.cpu().one_batch()[0].device == torch.device('cpu') and small.device == torch.device('cpu')
    assert small.cuda().one_batch()[0].device.type == default_device().type
    small.add_tfms([Transform(lambda b: b)], 'after_batch')
    assert len(small.one_batch()) == 2


def test_tabular_learner_too(small):
    learn = tabular_learner(small, layers=[10], n_out=1)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert learn.validate()[0] < 20


# on a GPU

@pytest.mark.cuda
def test_cuda_ratings_live_there(few):
    dls = RatingsDataLoaders.from_df(few, seed=0, device='cuda')
    x, y = dls.one_batch()
    assert x.is_cuda and y.is_cuda and dls.train_ds.on(dls.device)[0] is dls.train_ds.on(dls.device)[0]
    assert torch.equal(epoch(dls).cpu(), epoch(RatingsDataLoaders.from_df(few, seed=0, device='cpu')))
    assert not dls.cpu().one_batch()[0].is_cuda and dls.cuda().one_batch()[0].is_cuda


@pytest.mark.cuda
@pytest.mark.parametrize('kw', [dict(), dict(use_nn=True, layers=[20])])
def test_cuda_everything(few, tmp_path, kw):
    dls = RatingsDataLoaders.from_df(few, seed=0, device='cuda', bs=64)
    learn = collab_learner(dls, n_factors=8, y_range=(0, 5.5), metrics=rmse, path=tmp_path, **kw).to_fp16()
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(show_plot=False); learn.fit_one_cycle(2, .02); learn.fine_tune(1)
    learn.show_results(); dls.show_batch()
    assert learn.validate()[0] < 2 and learn.get_preds()[0].shape[0] == 400
    assert np.isfinite(float(learn.predict(dict(user='u1', item='i2'))[0]))
    learn.export('c.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore'); back = load_learner(tmp_path/'c.pkl')
    assert (
        np.isfinite(float(back.predict(dict(user='u1', item='i2'))[0]))
        and next(back.model.parameters()).device.type == 'cpu'
    )
