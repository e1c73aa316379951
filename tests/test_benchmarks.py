"The benchmark: contenders run as they are, in processes of their own; what is measured is what is said; results are data."
import json, subprocess, sys, time
from dataclasses import replace
from pathlib import Path

import numpy as np, pandas as pd, pytest

from collab_course.benchmarks import *
from collab_course.benchmarks import _grown
from collab_course.errors import DataError

root = Path(__file__).resolve().parent.parent
kept = root/'nbs'/'15_benchmarks.json'
constant = Contender('constant', 'course', 'import time', 'n = len(valid)', 'mean = train.rating.mean()', 'pred = [mean]*n')


@pytest.fixture
def inputs(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(dict(user=rng.integers(0, 20, 300), item=rng.integers(0, 10, 300), rating=rng.integers(1, 6, 300).astype(float)))
    write_inputs(tmp_path/'in.npz', table[:200], table[200:], items=pd.DataFrame(dict(item=range(10), genres=['Drama|War', 'Comedy']*5)))
    return tmp_path/'in.npz', table


def test_what_is_run_is_what_is_measured(inputs):
    file, table = inputs
    start = time.perf_counter()
    res, pred = run_contender(replace(constant, load=constant.load + '\ntime.sleep(.2)', fit=constant.fit + '\ntime.sleep(1.)', predict=constant.predict + '\ntime.sleep(.6)'), file, warm=False)
    whole = time.perf_counter() - start
    assert np.allclose(pred, table.rating[:200].mean()) and len(pred) == 100
    assert .2 <= res['load_s'] < res['predict_s'] < res['fit_s'] and res['predict_s'] >= .6 and res['fit_s'] >= 1 and res['load_s'] + res['fit_s'] + res['predict_s'] < whole
    assert res['versions']['numpy'] == np.__version__ and {'setup_mib', 'peak_mib'} <= set(res)


def test_the_clock_starts_after_a_first_try(inputs):
    "what a library does once is not counted; the first try has few rows, and leaves nothing behind"
    slow_once = replace(constant, setup='import time\ncalls = []', fit="calls.append(len(train))\nif len(calls) == 1: time.sleep(1)\nmean = train.rating.mean()\nreport = calls")
    warm, _ = run_contender(slow_once, inputs[0]); cold, _ = run_contender(slow_once, inputs[0], warm=False)
    assert warm['fit_s'] + .4 < cold['fit_s'] and warm['report'] == [200, 200] and cold['report'] == [200]
    leak = replace(constant, fit="assert 'left' not in globals()\nleft = 1\nmean = 3.")
    assert 'error' not in run_contender(leak, inputs[0])[0]


def test_memory_is_that_of_the_process(inputs):
    "a large parent does not count, a large array does"
    ballast = np.ones(60_000_000)                              # 458 MiB here
    small = run_contender(constant, inputs[0], warm=False)[0]
    large = run_contender(replace(constant, fit='import numpy as np\nmean = np.ones(30_000_000).mean()'), inputs[0], warm=False)[0]
    assert ballast.sum() > 0 and small['peak_mib'] < 300
    assert 200 < large['peak_mib'] - small['peak_mib'] < 300 and large['peak_mib'] - large['setup_mib'] > 200


@pytest.mark.parametrize('change, words', [
    (dict(fit='raise ValueError("no such thing\\nreally")'), 'ValueError: no such thing really'), (dict(predict='x = 1'), 'does not set pred'), (dict(predict='pred = [1.]'), 'shape (100,)'),
    (dict(predict='pred = [float("nan")]*n'), '100 of 100 in pred are not finite'), (dict(predict='pred = [float("inf")] + [3.]*(n - 1)'), '1 of 100 in pred are not finite'), (dict(fit='import sys; sys.stderr.write("50%\\n"); import os; os._exit(3)'), 'ended with 3: 50%'), (dict(fit='mean = 3.; report = float("nan")'), 'ended with 1'), (dict(setup='import no_such_library'), 'no_such_library'), (dict(fit='import os; os._exit(3)'), 'ended with 3'), (dict(setup='mean ='), 'SyntaxError')])
def test_a_contender_that_fails_is_a_row(inputs, change, words):
    res, pred = run_contender(replace(constant, **change), inputs[0], warm=False)
    assert pred is None and words in res['error'] and '\n' not in res['error']


def test_one_that_does_not_end_is_given_up(inputs):
    assert run_contender(replace(constant, fit='time.sleep(60)'), inputs[0], timeout=3)[0]['error'] == 'not done after 3 s'


def test_it_leaves_nothing_behind(inputs, tmp_path, monkeypatch):
    "neither files in the caller's folder nor, given up, what it had started"
    monkeypatch.chdir(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    assert 'error' not in run_contender(replace(constant, fit="open('left', 'w').close(); import tempfile; tempfile.mkdtemp(); mean = 3."), inputs[0])[0]
    start = time.perf_counter()
    res, _ = run_contender(replace(constant, fit="import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"), inputs[0], timeout=4)
    assert 'not done' in res['error'] and time.perf_counter() - start < 20 and sorted(p.name for p in tmp_path.iterdir()) == before


def test_environments_are_made_whole_or_not_at_all(tmp_path, monkeypatch):
    import collab_course.benchmarks as b
    monkeypatch.setitem(b.environments, 'none', b.Environment('no-such-package-as-this-one==0', ('none',)))
    lines = []
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    install_environments(tmp_path, ['none'], lines.append)
    assert len(lines) == 1 and 'none: could not be installed: ERROR' in lines[0] and not (tmp_path/'none').exists()
    real = subprocess.run
    def interrupted(cmd, **kwargs):
        if 'pip' in cmd: raise KeyboardInterrupt
        return real(cmd, **kwargs)
    monkeypatch.setattr(b.subprocess, 'run', interrupted)
    with pytest.raises(KeyboardInterrupt): install_environments(tmp_path, ['none'])
    assert not (tmp_path/'none').exists()


def test_what_is_printed_does_not_disturb(inputs):
    res, pred = run_contender(replace(constant, fit="print('{}'*1000); import os; os.write(1, b'noise'); mean = 3."), inputs[0])
    assert 'error' not in res and (pred == 3).all()


def test_code_is_code():
    everybody = [*contenders, *ranking_contenders, *(c for c, *_ in growth_contenders)]
    for c in everybody:
        for part in ('setup', 'load', 'fit', 'predict'): compile(getattr(c, part), f'{c.name} {part}', 'exec')
        assert 4 <= c.lines < 40 and ('pred' in c.predict or 'scores' in c.predict)
    assert Contender('x', 'course', 'a\n\nb', '', 'c', ' \nd').lines == 4
    assert {c.group for c in everybody} == {'course', 'fastai', *environments}
    for name, e in environments.items(): assert all('==' in r or '<' in r for r in e.require.split()), name


def test_a_library_that_is_not_there_is_a_row_that_says_so(ml, tmp_path):
    one = benchmark_splits(ml, range(1), ())
    runs = benchmark(ml, [constant, *(c for c in contenders if c.name == 'Cornac MF')], one, tmp_path, log=lambda line: None)
    table = benchmark_table(runs)
    assert 'not installed (cornac' in table.note['Cornac MF'] and table.runs['Cornac MF'] == 0 and np.isnan(table.mse['Cornac MF'])
    train, valid = one['random 0']
    assert np.isclose(table.mse['constant'], ((ml.ratings.rating.iloc[valid] - ml.ratings.rating.iloc[train].mean())**2).mean()) and list(frontier(table).index) == ['constant']
    ranked = benchmark_ranking(ml, [c for c in ranking_contenders if c.name in ('popularity', 'Cornac BPR')], folder=tmp_path, log=lambda line: None)
    assert abs(ranked[0]['nDCG'] - .25) < .02 and 'not installed' in ranked[1]['error']


def test_splits_are_the_course_s(ml):
    splits = benchmark_splits(ml)
    assert list(splits) == [f'random {s}' for s in range(5)] + [f'u{k}' for k in range(1, 6)]
    from fastai.data.transforms import RandomSplitter
    for s in range(2): assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(splits[f'random {s}'], RandomSplitter(seed=s)(range(100_000))))
    for train, valid in splits.values(): assert len(train) == 80_000 and len(np.union1d(train, valid)) == 100_000
    ratings, users, items = benchmark_tables(ml)
    assert ratings['item'].nunique() == len(items) == 1664 and len(users) == 943
    assert (ml.ratings.title == pd.Series(sorted(ml.movies.title.unique())).to_numpy()[ratings['item']]).all()


def test_table_and_frontier():
    rows = [('a', .82, 1., 'random 0'), ('a', .84, 3., 'random 1'), ('a', .80, 2., 'random 2'), ('a', .9, 50., 'u1'), ('4 + weight decay', .81, 1., 'random 0'), ('4 + weight decay', .84, 1., 'random 1')]
    t = benchmark_table([dict(contender=n, group='course', lines=5, split=s, mse=m, load_s=.1, fit_s=f, predict_s=.1, peak_mib=100*f, setup_mib=50.) for n, m, f, s in rows])
    a = t.loc['a']
    assert np.isclose(a.mse, .82) and np.isclose(a.rmse, .82**.5) and a.fit == 2 and a.peak == 300 and a.folds == .9 and a.runs == 4    # times of the random splits only
    assert np.isclose(a.gap, .005) and np.isclose(a.gap_sd, .01/2**.5)                                    # on the splits that both have
    f = frontier(pd.DataFrame(dict(mse=[.9, .9, .8, .85, .8], fit=[1., 2., 9., 5., 10.]), index=list('abcde')))
    assert list(f.index) == ['a', 'd', 'c']


def test_results_are_data(tmp_path):
    save_results(tmp_path/'r.json', accuracy=[dict(contender='x', mse=1.)])
    save_results(tmp_path/'r.json', growth=[dict(contender='y')])
    res = load_results(tmp_path/'r.json')
    assert res['accuracy']['runs'] == [dict(contender='x', mse=1.)] and set(res) == {'accuracy', 'growth'} and {'cpu', 'cores', 'versions'} <= set(res['growth']['machine'])
    with pytest.raises(ValueError): save_results(tmp_path/'r.json', growth=[dict(mse=float('nan'))])
    assert load_results(tmp_path/'r.json') == res and [p.name for p in tmp_path.iterdir()] == ['r.json']
    for text in ('', '[]', '{"a": 1}', 'x'):
        (tmp_path/'bad.json').write_text(text)
        with pytest.raises(DataError, match='no results'): load_results(tmp_path/'bad.json')


def test_growth_on_little(tmp_path):
    assert benchmark_growth([(_grown, 10_000, 1)], (20_000,)) == []                       # nobody: nothing is made
    runs = benchmark_growth([(_grown, 20_000, 2), (_grown, 10_000, 1)], (20_000,), log=lambda line: None)
    assert len(runs) == 1 and runs[0]['n'] == 20_000 and runs[0]['epoch_s'] == runs[0]['fit_s']/2
    assert .5 < runs[0]['floor'] < .8 and runs[0]['mse'] > runs[0]['floor']


def test_the_kept_results():
    "nobody typed them: every contender is there, by its present name and with its present lines, on every split; and the growth reaches 25 million"
    res = load_results(kept)
    runs = pd.DataFrame(res['accuracy']['runs'])
    assert set(runs.contender) == {c.name for c in contenders}
    assert runs.groupby('contender').split.nunique().eq(10).all() and runs.mse.notna().all()
    assert runs.drop_duplicates('contender').set_index('contender').lines.to_dict() == {c.name: c.lines for c in contenders}
    assert {c.name for c in ranking_contenders} == {r['contender'] for r in res['ranking']['runs']}
    assert {r['n'] for r in res['growth']['runs'] if r['group'] == 'course'} == set(growth_sizes)
    assert '/' not in json.dumps([r.get('error', '') for part in res.values() for r in part['runs']])


def test_quick_from_the_command_line(ml, tmp_path):
    run = subprocess.run([sys.executable, '-c', 'import sys; from collab_course.cli import main; sys.exit(main())', 'benchmark', '--quick', '--out', str(tmp_path/'q.json')], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert 'nobody is more accurate and faster than' in run.stdout and '4 + weight decay' in run.stdout
    res = load_results(tmp_path/'q.json')
    assert set(res) == {'accuracy', 'ranking', 'growth'} and .80 < benchmark_table(res['accuracy']['runs']).mse['4 + weight decay'] < .845


@pytest.mark.parametrize('args, words', [(['--install'], '--environments DIR'), (['--environments', 'none'], 'no such folder'), (['--out', 'none/r.json'], 'cannot be written'), (['--out', '.'], 'cannot be written'),
                                         (['--only', 'nobody'], "nobody in accuracy"), (['--quick', '--only', 'myFM'], '--quick'), (['--parts', 'speed'], 'invalid choice'), (['--splits', '0'], 'at least 1')])
def test_unusable(args, words, tmp_path):
    run = subprocess.run([sys.executable, '-c', 'import sys; from collab_course.cli import main; sys.exit(main())', 'benchmark', *args], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert run.returncode == 2 and words in run.stderr and run.stderr.count('\n') == 1 and not list(tmp_path.iterdir())
