"""Several processes: the sums are those of one. This file holds the tests and, run as a script, what each
process does."""

import functools, os, re, socket, subprocess, sys, tempfile, time
from pathlib import Path

root = Path(__file__).resolve().parent.parent
if __name__ == '__main__': sys.path.insert(0, str(root))
import pytest, torch
from fastai.collab import *
from fastai.tabular.all import *

from collab_course.errors import DataError
from collab_course.synthetic import synthetic_ratings
from collab_course.dot_product import DotProductBias, DotProductBiasScratch
from collab_course.loaders import *
from collab_course.distributed import *
from collab_course.training import Recipe, RowAdam, sparse_rows
from collab_course.progression import run_progression
from collab_course.history import HistoryDL

ratings = synthetic_ratings(60, 40, 2_000, seed=1).ratings


# what a process does; what it does alone is what the others are held against

class Given(Callback):
    "What the model is given in training: for each batch (epoch, (rows, 2))"
    def before_fit(self): self.rows, self.handle = [], self.model.register_forward_pre_hook(self.see)
    def see(self, model, args):
        if model.training: self.rows.append((self.epoch, args[0].clone()))
    def after_fit(self): self.handle.remove()


def loaders(bs, n, **kw):
    kw = {
        **dict(
            seed=0, bs=bs, val_bs=150, valid_idx=range(0, n, 5), device=os.environ.get('TEST_DEVICE', 'cpu')
        ),
        **kw,
    }
    return RatingsDataLoaders.from_df(ratings.head(n), **kw)


def learner(dls, make, same_start=True, loss_func=mse_flat, **kw):
    # in training, DDP gives all processes the weights of process 0
    set_seed(3 if same_start else 3 + rank_distrib())
    return Learner(dls, make(dls), loss_func=loss_func, metrics=[rmse, mae], wd=.1, **kw)


def fitted(dls, make, train_metrics=False, **kw):
    learn = learner(dls, make, same_start=False, **kw)
    learn.recorder.train_metrics = train_metrics
    given = Given()
    with distributed(learn), learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, .02, cbs=[given]); values = learn.recorder.values
        learn.fit(1, .01)
    assert (
        type(learn.model) is type(make(dls))
        and {type(dl) for dl in learn.dls.loaders} == {RatingsDL}
        and not hasattr(learn, 'shared_batches')
    )
    return dict(
        sums=[*values, *learn.recorder.values, [float(o) for o in learn.recorder.losses]],
        rows=given.rows,
        epoch=dls.train.epoch,
        params={k: v.detach().cpu() for k, v in learn.model.named_parameters()},
    )


def answers(bs):
    "Validation and predictions, in the context and without a training"
    learn = learner(dls := loaders(50, 189, val_bs=bs, val_shuffle=True), bias)
    with distributed(learn), learn.no_bar(), learn.no_logging():
        res = dict(
            sums=[learn.validate(), learn.validate(0)],
            valid=learn.get_preds(),
            train=learn.get_preds(ds_idx=0),
            all=learn.get_preds(with_input=True, with_loss=True),
            new=learn.get_preds(dl=dls.test_dl(ratings.iloc[7:8, :2])),
            three=learn.get_preds(dl=dls.test_dl(ratings.iloc[7:10])),
            one=learn.predict(ratings.iloc[7])[0],
        )
    with learn.no_bar(): res['after'] = learn.get_preds()         # outside, each process does everything
    return res


def bias(dls): return DotProductBias(dls.n_users, dls.n_items, 6)
def scratch(dls): return DotProductBiasScratch(dls.n_users, dls.n_items, 6)
def stock(dls): return EmbeddingDotBias.from_classes(6, dls.classes, y_range=(0, 5.5))

def root_loss(pred, targ, reduction='mean'):
    "A loss that is no mean over rows"
    res = (pred.flatten() - targ.flatten())**2
    return res if reduction == 'none' else res.mean().sqrt()


def drawn():
    "Loaders that draw their seed, in a process with a random state of its own"
    torch.manual_seed(11 + rank_distrib())
    return loaders(101, 1_000, seed=None)


def progression():
    dls = RatingsDataLoaders.from_df(ratings, seed=0, device=os.environ.get('TEST_DEVICE', 'cpu'))
    table, history = run_progression(dls, Recipe('short', 101, .02, .1, .01, 2, 6), bar=False, history=True)
    return dict(
        sums=[
            df.select_dtypes('number').drop(columns='seconds').to_numpy().tolist() for df in (table, history)
        ]
    )


fits = {
    'bias 512': lambda: fitted(loaders(512, 2_000), bias),  # 1,600 rows: 512, 512, 512, 64
    # 1,012 rows: ten of 101 and one of 2, which three processes cannot share; 253 to validate: 150, 103
    'scratch 101': lambda: fitted(loaders(101, 1_265), scratch),
    # 151 rows: two of 50, and 51 with the one that would be alone; 38 validated one by one: slices of no row
    'stock 50': lambda: fitted(loaders(50, 189, val_bs=1), stock),
    'another loss': lambda: fitted(loaders(64, 650), bias, loss_func=root_loss),
    'last dropped': lambda: fitted(loaders(101, 1_265, drop_last=True), bias),
    'transformed': lambda: fitted(
        loaders(101, 1_265, after_batch=lambda t: t / 2 if t.is_floating_point() else t), bias
    ),
    'train metrics': lambda: fitted(loaders(101, 1_265), bias, train_metrics=True),
    'drawn seed': lambda: fitted(drawn(), bias),
}
asked = {'answers 150': lambda: answers(150), 'answers 7': lambda: answers(7), 'progression': progression}


def lists_of_rows():
    learn = learner(loaders(64, 100), lambda d: sparse_rows(bias(d)), opt_func=RowAdam)
    with distributed(learn), learn.no_bar(), learn.no_logging(): learn.fit(1)


def context_alone():
    learn = learner(loaders(64, 100), bias)
    with learn.distrib_ctx(), learn.no_bar(), learn.no_logging(): learn.fit(1)

refused = {
    'other rows': (
        lambda: fitted(loaders(64, 100, valid_idx=range(rank_distrib(), 100, 5)), bias),
        'different rows',
    ),
    'other split': (
        lambda: (
            torch.manual_seed(rank_distrib()),
            fitted(loaders(64, 100, seed=None, valid_idx=None), bias),
        ),
        'different rows',
    ),
    'other batches': (
        lambda: fitted(loaders(64 + rank_distrib(), 100), bias),
        'different rows or batch sizes',
    ),
    'lists of rows': (lists_of_rows, 'leave `sparse_rows` out'),
    'context alone': (context_alone, 'with distributed'),
}


def failure(f):
    try: f()
    except Exception as e: return f'{type(e).__name__}: {e}'
    return 'nothing was raised'


if __name__ == '__main__':
    out, *names = sys.argv[1:]
    res = {k: failure(refused[k][0]) if k in refused else (fits | asked)[k]() for k in names}
    torch.save(res, f'{out}.{rank_distrib()}')
    torch.distributed.destroy_process_group()


# the tests

def start(n, *command, timeout=200, **env):
    """What `n` processes of `python command` print. Fails with it if one of them fails, and if they do not
    end in time"""
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    env = {
        **os.environ,
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': str(port),
        'WORLD_SIZE': str(n),
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': os.pathsep.join(filter(None, [str(root), os.environ.get('PYTHONPATH')])),
        **env,
    }
    said = [tempfile.TemporaryFile('w+') for _ in range(n)]
    ps = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**env, 'RANK': str(r), 'LOCAL_RANK': str(r)},
            stdout=o,
            stderr=subprocess.STDOUT,
        )
        for r, o in enumerate(said)
    ]
    end = time.monotonic() + timeout
    try:
        while any(p.poll() is None for p in ps) and not any(p.poll() for p in ps) and time.monotonic() < end:
            time.sleep(0.05)
        codes = [p.poll() for p in ps]
    finally:
        for p in ps: p.kill(); p.wait()
    texts = [(o.seek(0), o.read(), o.close())[1] for o in said]
    assert codes == [0] * n, (
        f'exit codes {codes} (None: had not ended within {timeout} s, or when another failed)\n'
        + '\n'.join(texts)
    )
    return texts


@pytest.fixture(scope='module')
def alone():
    "What one process gets; made when asked for"
    class Alone(dict):
        def __missing__(self, k): self[k] = (fits | asked)[k](); return self[k]
    return Alone()


runs = {2: [*fits, *asked, *refused], 3: ['scratch 101', 'stock 50', 'answers 7', 'other rows']}
def of(names):
    return pytest.mark.parametrize('n, name', [(n, k) for n in runs for k in runs[n] if k in names])


@pytest.fixture(scope='module')
def together(tmp_path_factory):
    "Function: how many processes → what each of them gets on the CPU"
    pytest.importorskip('accelerate')
    @functools.cache
    def run(n):
        out = tmp_path_factory.mktemp('together')/'res'
        start(n, __file__, out, *runs[n], ACCELERATE_USE_CPU='true')
        return [torch.load(f'{out}.{r}', weights_only=False) for r in range(n)]
    return run


def flat(o):
    "All numbers of a nested result"
    if o is None: return torch.empty(0)
    return (
        torch.tensor([o], dtype=torch.float64)
        if isinstance(o, (int, float))
        else o.double().flatten().cpu()
        if isinstance(o, Tensor)
        else torch.cat([flat(v) for v in o])
    )


def close(a, b, eps=1e-5):
    a, b = flat(a), flat(b)
    assert a.shape == b.shape and torch.allclose(a, b, atol=eps, rtol=0, equal_nan=True), (a - b).abs().max()


@of(fits)
def test_training_is_that_of_one_process(together, alone, n, name):
    want, ranks = alone[name], together(n)
    for got in ranks:
        # losses of every step; training and validation loss and metrics of every epoch
        close(got[name]['sums'], want['sums'])
        assert got[name]['epoch'] == want['epoch'] == 2
        for k, p in want['params'].items(): close(got[name]['params'][k], p, 1e-4)
    for k, p in ranks[0][name]['params'].items():
        assert all(torch.equal(p, o[name]['params'][k]) for o in ranks)


@of(fits)
def test_each_row_once(together, alone, n, name):
    steps = [o[name]['rows'] for o in together(n)]
    assert {len(s) for s in steps} == {len(alone[name]['rows'])}    # as many steps in each process
    for one, *parts in zip(alone[name]['rows'], *steps):
        assert torch.equal(torch.cat([x for _, x in parts]), one[1])  # the same batch, cut in slices
        sizes = [len(x) for _, x in parts]
        assert max(sizes) - min(sizes) <= 1
    if name == 'scratch 101':
        assert (min(len(x) for s in steps for _, x in s) == 0) == (n == 3)     # a batch of two for three
        rows = torch.cat([x for s in steps for epoch, x in s if epoch == 0])
        dls = loaders(101, 1_265)
        assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, dls.train_ds.x.tolist()))


@of(asked)
def test_answers_are_those_of_one_process(together, alone, n, name):
    for got in together(n):
        assert got[name].keys() == alone[name].keys()
        for k, want in alone[name].items(): close(got[name][k], want)


@of(['answers 7'])
def test_predictions_are_complete_and_in_order(together, n, name):
    ds = loaders(50, 189).valid_ds
    for got in together(n):
        inputs, preds, targs, losses = got[name]['all']
        assert (
            torch.equal(inputs, ds.x)
            and torch.equal(targs, ds.y)
            and losses.shape == (38,)
            and preds.shape == (38, 1)
        )
        assert got[name]['new'][0].shape == (1, 1) and len(got[name]['three'][0]) == 3


@of(refused)
def test_refused_by_all(together, n, name):
    for got in together(n): assert re.match(f'DataError: .*{refused[name][1]}', got[name]), got[name]


def test_slices_without_processes():
    pytest.importorskip('accelerate')
    for n, bs, W in [(10, 4, 4), (97, 32, 3), (1, 4, 2), (33, 32, 5)]:
        make = lambda: RatingsDataLoaders.from_df(ratings.head(n), valid_pct=0, bs=bs, seed=0).train
        parts = [list(DistributedRatingsDL(make(), r, W)) for r in range(W)]
        want = list(make())
        assert all(len(p) == len(want) == len(DistributedRatingsDL(make(), 0, W)) for p in parts)
        for one, *some in zip(want, *parts):
            for a, *b in zip(one, *some): assert torch.equal(a, torch.cat(b))
    dl = DistributedRatingsDL(make(), 0, 5)
    assert len(dl.one_batch()[0]) == 32 and type(dl.new()) is RatingsDL
    with pytest.raises(DataError, match='RatingsDL is needed'):
        DistributedRatingsDL(TfmdDL(list(range(3))), 0, 2)


def test_histories_are_shared_too():
    pytest.importorskip('accelerate')
    make = lambda: HistoryDL(loaders(64, 2_000).train_ds, bs=7, shuffle=True, seed=0)
    parts = [[b for b in DistributedRatingsDL(make(), r, 3)] for r in range(3)]
    for one, *some in zip(make(), *parts):
        for a, *b in zip(one, *some): assert torch.equal(a, torch.cat(b))


def test_one_process_needs_nothing(monkeypatch):
    learn = learner(loaders(64, 200), bias)
    n = len(learn.cbs)
    with distributed(learn): assert len(learn.cbs) == n
    monkeypatch.setenv('WORLD_SIZE', '2')
    # as where accelerate is missing
    monkeypatch.setattr('collab_course.distributed.DistributedDL', TfmdDL)
    with pytest.raises(ImportError, match=r'collab_course\[distributed\]'):
        with distributed(learn): pass


unshared = """import sys
sys.path.insert(0, 'tests')
from test_distributed import *
learn = learner(loaders(64, 100), bias)
def train():
    with distributed(learn), learn.no_bar(), learn.no_logging(): learn.fit(1)
print(failure(train))
"""


# torchrun; accelerate launch --multi_gpu
@pytest.mark.parametrize('env', [{}, dict(ACCELERATE_USE_CPU='false')])
def test_cpus_without_the_setting_are_told_what_to_set(monkeypatch, env):
    pytest.importorskip('accelerate')
    monkeypatch.delenv('ACCELERATE_USE_CPU', raising=False)
    monkeypatch.chdir(root)
    for text in start(2, '-c', unshared, CUDA_VISIBLE_DEVICES='', **env):
        assert re.search(
            '^DataError: 2 processes were launched, .* set ACCELERATE_USE_CPU=true', text, re.M
        ), text


def test_the_package_does_without_accelerate():
    code = ("import sys; sys.modules['accelerate'] = None; import torch, collab_course.cli, "
            "collab_course.progression; assert not torch.distributed.is_initialized()")
    subprocess.run(
        [sys.executable, '-c', code], check=True, timeout=120, env={**os.environ, 'PYTHONPATH': str(root)}
    )


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs')
def test_cuda_two_devices(alone, tmp_path):
    pytest.importorskip('accelerate')
    start(2, __file__, tmp_path/'res', *runs[2], TEST_DEVICE='cuda', CUDA_VISIBLE_DEVICES='0,1')
    for r in range(2):
        got = torch.load(tmp_path/f'res.{r}', weights_only=False)
        for name in fits: close(got[name]['sums'], alone[name]['sums'], 1e-4)
        for name in asked:
            for k, want in alone[name].items(): close(got[name][k], want, 1e-4)
        for name, (_, words) in refused.items(): assert words in got[name]
