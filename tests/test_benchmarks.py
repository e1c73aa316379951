"The benchmark: contenders run as they are, in processes of their own; results are data."
import json, subprocess, sys, time
from dataclasses import replace
from pathlib import Path

import numpy as np, pandas as pd, pytest

from collab_course.benchmarks import *
from collab_course.errors import DataError

root = Path(__file__).resolve().parent.parent
kept = root/'nbs'/'15_benchmarks.json'
contenders, ranking_contenders, growth_contenders = map(read_contenders, ('accuracy', 'ranking', 'growth'))
grown = growth_contenders[0]


def quiet(line): pass


def call(*args, cwd=None):
    "collab-course benchmark, as a user calls it"
    code = 'import sys; from collab_course.cli import main; sys.exit(main())'
    command = [sys.executable, '-c', code, 'benchmark', *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


@pytest.fixture
def contender(tmp_path_factory):
    "Make a contender that predicts the mean; the arguments take the place of a piece of its file"
    folder = tmp_path_factory.mktemp('contenders')

    def make(setup='', load='n = len(valid)', fit='mean = train.rating.mean()', predict='pred = [model]*n'):
        file = folder/f'{len(list(folder.iterdir()))}.py'
        functions = [('load(train, valid)', load, 'return n'), ('fit(data, train)', fit, 'return mean'),
                     ('predict(model, data, valid)', f'n = data\n{predict}', 'return pred')]
        file.write_text('import time\n' + setup + ''.join(
            f"\ndef {head}:\n" + ''.join(f'    {line}\n' for line in [*body.splitlines(), last])
            for head, body, last in functions))
        return Contender('constant', 'course', file)
    return make


@pytest.fixture
def inputs(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(dict(user=rng.integers(0, 20, 300), item=rng.integers(0, 10, 300),
                              rating=rng.integers(1, 6, 300).astype(float)))
    items = pd.DataFrame(dict(item=range(10), genres=['Drama|War', 'Comedy']*5))
    write_inputs(tmp_path/'in.npz', table[:200], table[200:], items=items)
    return tmp_path/'in.npz', table


def test_what_is_run_is_what_is_measured(inputs, contender):
    file, table = inputs
    start = time.perf_counter()
    slow = contender(load='n = len(valid)\ntime.sleep(.2)', fit='mean = train.rating.mean()\ntime.sleep(1.)',
                     predict='pred = [model]*n\ntime.sleep(.6)')
    res, pred = run_contender(slow, file, warm=False)
    whole = time.perf_counter() - start
    assert np.allclose(pred, table.rating[:200].mean()) and len(pred) == 100
    assert .2 <= res['load_s'] < res['predict_s'] < res['fit_s']
    assert res['predict_s'] >= .6 and res['fit_s'] >= 1
    assert res['load_s'] + res['fit_s'] + res['predict_s'] < whole
    assert res['versions']['numpy'] == np.__version__ and {'setup_mib', 'peak_mib'} <= set(res)
    assert res['cpu_s'] < .5 and res['threads'] in (None, *range(1, 200))       # a second asleep is no work


def test_the_clock_starts_after_a_first_try(inputs, contender):
    "what a library does once is not counted; the first try has few rows, and leaves nothing behind"
    fit = "calls.append(len(train))\nif len(calls) == 1: time.sleep(1)\nmean = train.rating.mean()"
    slow_once = contender(setup="calls = []\nreport = {'calls': calls}", fit=fit)
    warm, _ = run_contender(slow_once, inputs[0])
    cold, _ = run_contender(slow_once, inputs[0], warm=False)
    assert warm['fit_s'] + .4 < cold['fit_s']
    assert warm['report'] == {'calls': [200, 200]} and cold['report'] == {'calls': [200]}
    leak = contender(load='n = {}', fit="assert not data\ndata['left'] = 1\nmean = 3.",
                     predict='pred = [3.]*len(valid)')
    assert 'error' not in run_contender(leak, inputs[0])[0]


def test_functions_get_what_they_name(inputs, tmp_path):
    "tables, seed and settings by name; what nobody names goes to a ** parameter, or is an error"
    file = tmp_path/'named.py'
    file.write_text('def load(items, seed, first=0): return len(items) + seed + first\n'
                    'def fit(data, **rest): return data + rest["second"]\n'
                    'def predict(model, valid, first): return [model + first]*len(valid)\n')
    named = Contender('named', 'course', file, {'first': 100, 'second': 1000})
    assert (run_contender(named, inputs[0], seed=7)[1] == 10 + 7 + 100 + 1000 + 100).all()
    file.write_text(file.read_text().replace('**rest', 'users').replace('rest["second"]', '0'))
    assert 'no function takes the settings second' in run_contender(named, inputs[0])[0]['error']
    without = replace(named, settings={'first': 1})
    assert "missing 1 required positional argument: 'users'" in run_contender(without, inputs[0])[0]['error']


def test_a_contender_gets_no_ratings_to_validate_on(inputs, contender):
    knows = contender(load='n = len(valid)\nassert list(valid) == ["user", "item"]')
    assert 'error' not in run_contender(knows, inputs[0], warm=False)[0]


def test_contenders_are_told_when_rows_were_rated(ml, contender):
    knows = contender(load='n = len(valid)\nassert len(train_times) == len(train) and len(valid_times) == n')
    text = knows.file.read_text(encoding='utf-8')
    knows.file.write_text(text.replace('load(train, valid)', 'load(train, valid, train_times, valid_times)'))
    [run] = benchmark(ml, [knows], benchmark_splits(ml, range(1), ()), log=quiet)
    assert 'error' not in run
    own = ml.ratings[['user', 'rating']].assign(item=ml.ratings.movie)[:3000]
    [run] = benchmark(own, [knows], benchmark_splits(own, range(1)), log=quiet)
    assert 'missing 2 required positional arguments' in run['error']       # a table without times


def test_everybody_tries_no_more_than_the_budget(ml, contender, tmp_path, monkeypatch):
    "the best of the grid is found, on training rows of split 0 alone; too large a grid is an error"
    file = tmp_path/'shifted.py'
    file.write_text('def load(train, valid): return len(train), len(valid)\n'
                    'def fit(train): return train.rating.mean()\n'
                    'def predict(model, data, shift, sign): return [model + shift*sign]*data[1]\n'
                    'report = {}\n')
    grid = {'shift': [0., .5, 1.], 'sign': [-1., 1.]}
    shifted = Contender('shifted', 'course', file, {'shift': 9., 'sign': 9.}, grid=grid)
    tried = settings_tried(shifted)
    assert len(tried) == 6 and all(set(c.settings) == {'shift', 'sign'} for c in tried)
    runs = tune(ml, [shifted], log=quiet)
    assert [run['settings'] for run in runs] == [c.settings for c in tried]
    assert best_settings(runs)['shifted']['shift'] == 0. and 1.2 < min(run['mse'] for run in runs) < 1.35
    with pytest.raises(DataError, match='13 settings in the grid; 12 may be tried'):
        settings_tried(replace(shifted, grid={'shift': list(range(13))}))
    monkeypatch.setitem(tuning_budget, 'seconds', -1.)
    assert tune(ml, [shifted], log=quiet) == []
    broken = replace(contender(fit='raise ValueError("no")'), grid={'x': [1]}, settings={'x': 1})
    monkeypatch.setitem(tuning_budget, 'seconds', 60.)
    runs = tune(ml, [broken], log=quiet)
    assert runs[0]['mse'] is None and best_settings(runs) == {}
    assert all(len(settings_tried(c)) <= 12 for c in contenders if c.grid)


def test_memory_is_that_of_the_process(inputs, contender):
    "a large parent does not count, a large array does"
    ballast = np.ones(60_000_000)                              # 458 MiB here
    small = run_contender(contender(), inputs[0], warm=False)[0]
    fit = 'import numpy as np\nmean = np.ones(30_000_000).mean()'
    large = run_contender(contender(fit=fit), inputs[0], warm=False)[0]
    assert ballast.sum() > 0 and small['peak_mib'] < 300
    assert 200 < large['peak_mib'] - small['peak_mib'] < 300 and large['peak_mib'] - large['setup_mib'] > 200


@pytest.mark.parametrize('change, words', [
    (dict(fit='raise ValueError("no such thing\\nreally")'), 'ValueError: no such thing really'),
    (dict(predict='pred = None'), 'does not return'), (dict(predict='pred = [1.]'), 'shape (100,)'),
    (dict(predict='pred = [float("nan")]*n'), '100 of 100 predictions are not finite'),
    (dict(predict='pred = [float("inf")] + [3.]*(n - 1)'), '1 of 100 predictions are not finite'),
    (dict(fit='import sys, os\nsys.stderr.write("50%\\n")\nos._exit(3)'), 'ended with 3: 50%'),
    (dict(setup='report = {"x": float("nan")}'), 'ended with 1'),
    (dict(setup='import no_such_library'), 'no_such_library'),
    (dict(fit='import os\nos._exit(3)'), 'ended with 3'),
    (dict(setup='mean ='), 'SyntaxError'), (dict(setup='del load'), 'load')])
def test_a_contender_that_fails_is_a_row(inputs, contender, change, words):
    res, pred = run_contender(contender(**change), inputs[0], warm=False)
    assert pred is None and words in res['error'] and '\n' not in res['error']


def test_one_that_does_not_end_is_given_up(inputs, contender):
    res, _ = run_contender(contender(fit='time.sleep(60)'), inputs[0], timeout=3)
    assert res['error'] == 'not done after 3 s'


def test_it_leaves_nothing_behind(inputs, contender, tmp_path, monkeypatch):
    "neither files in the caller's folder nor, given up, what it had started"
    monkeypatch.chdir(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    litters = contender(fit="import tempfile\nopen('left', 'w').close()\ntempfile.mkdtemp()\nmean = 3.")
    assert 'error' not in run_contender(litters, inputs[0])[0]
    start = time.perf_counter()
    sleep = "[sys.executable, '-c', 'import time; time.sleep(60)']"
    hangs = contender(fit=f"import subprocess, sys\nsubprocess.run({sleep})")
    res, _ = run_contender(hangs, inputs[0], timeout=4)
    assert 'not done' in res['error'] and time.perf_counter() - start < 20
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_environments_are_made_whole_or_not_at_all(tmp_path, monkeypatch):
    import collab_course.benchmarks as b
    monkeypatch.setitem(b.environments, 'none', b.Environment('no-such-package-as-this-one==0', ('none',)))
    lines = []
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    install_environments(tmp_path, ['none'], lines.append)
    assert (
        len(lines) == 1
        and 'none: could not be installed: ERROR' in lines[0]
        and not (tmp_path / 'none').exists()
    )
    real = subprocess.run
    def interrupted(cmd, **kwargs):
        if 'pip' in cmd: raise KeyboardInterrupt
        return real(cmd, **kwargs)
    monkeypatch.setattr(b.subprocess, 'run', interrupted)
    with pytest.raises(KeyboardInterrupt): install_environments(tmp_path, ['none'])
    assert not (tmp_path/'none').exists()


def test_what_is_printed_does_not_disturb(inputs, contender):
    noisy = contender(fit="print('{}'*1000)\nimport os\nos.write(1, b'noise')\nmean = 3.")
    res, pred = run_contender(noisy, inputs[0])
    assert 'error' not in res and (pred == 3).all()


def test_code_is_code():
    everybody = [*contenders, *ranking_contenders, *growth_contenders]
    for c in everybody:
        text = c.file.read_text(encoding='utf-8')
        assert all(f'\ndef {part}(' in text for part in ('load', 'fit', 'predict')), c.name
        assert 4 <= c.lines < 40, c.name
        assert all(len(line) <= 110 for line in text.splitlines()), c.name
        if c.group not in ('course', 'fastai'): assert c.docs.startswith('https://')
    assert {c.group for c in everybody} == {'course', 'fastai', *environments}
    files = {p for p in contenders_folder().glob('*.py') if not p.name.startswith(('_', 'exercise'))}
    assert files == {c.file for c in everybody}
    for name, e in environments.items(): assert all('==' in r or '<' in r for r in e.require.split()), name
    assert all(c.largest and c.settings['epochs'] for c in growth_contenders)


def test_lines_are_what_a_user_writes():
    head = (
        '"What it is"\nimport a\n\n# a comment\ndef fit(data,\n        seed):\n    "Train"\n    x, y = data\n'
    )
    body = '    with a.silence():\n        model = a.fit(x,\n                      y)\n    return model\n'
    assert user_lines(head + body) == 3
    assert user_lines('def load(train):\n    return train.copy()  # all\n') == 1


def test_without_the_repository_there_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv('COLLAB_COURSE_CONTENDERS', str(tmp_path))
    with pytest.raises(DataError, match="needs the course's repository"): read_contenders()
    run = call('--quick')
    assert run.returncode == 2 and run.stderr.count('\n') == 1
    assert "needs the course's repository" in run.stderr


def test_a_library_that_is_not_there_is_a_row_that_says_so(ml, contender, tmp_path):
    one = benchmark_splits(ml, range(1), ())
    cornac = next(c for c in contenders if c.name == 'Cornac MF')
    runs = benchmark(ml, [contender(), cornac], one, tmp_path, log=quiet)
    table = benchmark_table(runs)
    assert (
        'not installed (cornac' in table.note['Cornac MF']
        and table.runs['Cornac MF'] == 0
        and np.isnan(table.mse['Cornac MF'])
    )
    train, valid = one['random 0']
    rating = ml.ratings.rating
    assert np.isclose(table.mse['constant'], ((rating.iloc[valid] - rating.iloc[train].mean())**2).mean())
    assert list(frontier(table).index) == ['constant']
    two = [c for c in ranking_contenders if c.name in ('popularity', 'Cornac BPR')]
    ranked = benchmark_ranking(ml, two, folder=tmp_path, log=quiet)
    assert abs(ranked[0]['nDCG'] - .25) < .02 and 'not installed' in ranked[1]['error']


def test_splits_are_the_course_s(ml):
    splits = benchmark_splits(ml)
    assert list(splits) == [f'random {s}' for s in range(5)] + [f'u{k}' for k in range(1, 6)]
    from fastai.data.transforms import RandomSplitter
    for s in range(2):
        for made, wanted in zip(splits[f'random {s}'], RandomSplitter(seed=s)(range(100_000))):
            assert (np.asarray(made) == np.asarray(wanted)).all()
    for train, valid in splits.values():
        assert len(train) == 80_000 and len(np.union1d(train, valid)) == 100_000
    ratings, users, items = benchmark_tables(ml)
    assert ratings['item'].nunique() == len(items) == 1664 and len(users) == 943
    assert (ml.ratings.title == pd.Series(sorted(ml.movies.title.unique())).to_numpy()[ratings['item']]).all()


def test_table_and_frontier():
    rows = [
        ('a', 0.82, 1.0, 'random 0'),
        ('a', 0.84, 3.0, 'random 1'),
        ('a', 0.80, 2.0, 'random 2'),
        ('a', 0.9, 50.0, 'u1'),
        ('4 + weight decay', 0.81, 1.0, 'random 0'),
        ('4 + weight decay', 0.84, 1.0, 'random 1'),
    ]
    same = dict(group='course', lines=5, load_s=.1, predict_s=.1, setup_mib=50.)
    t = benchmark_table(
        [same | dict(contender=n, split=s, mse=m, fit_s=f, peak_mib=100 * f) for n, m, f, s in rows]
    )
    a = t.loc['a']
    assert np.isclose(a.mse, .82) and np.isclose(a.rmse, .82**.5) and a.folds == .9 and a.runs == 4
    # of the random splits only
    assert a.fit == 2 and a.peak == 300
    assert np.isclose(a.gap, .005) and np.isclose(a.gap_sd, .01/2**.5)  # on the splits that both have
    f = frontier(
        pd.DataFrame(
            dict(mse=[0.9, 0.9, 0.8, 0.85, 0.8], fit=[1.0, 2.0, 9.0, 5.0, 10.0]), index=list('abcde')
        )
    )
    assert list(f.index) == ['a', 'd', 'c']


def test_results_are_data(tmp_path):
    save_results(tmp_path/'r.json', accuracy=[dict(contender='x', mse=1.)])
    save_results(tmp_path/'r.json', growth=[dict(contender='y')])
    res = load_results(tmp_path/'r.json')
    assert res['accuracy']['runs'] == [dict(contender='x', mse=1.)] and set(res) == {'accuracy', 'growth'}
    assert {'cpu', 'cores', 'versions'} <= set(res['growth']['machine'])
    with pytest.raises(ValueError): save_results(tmp_path/'r.json', growth=[dict(mse=float('nan'))])
    assert load_results(tmp_path/'r.json') == res and [p.name for p in tmp_path.iterdir()] == ['r.json']
    for text in ('', '[]', '{"a": 1}', 'x'):
        (tmp_path/'bad.json').write_text(text)
        with pytest.raises(DataError, match='no results'): load_results(tmp_path/'bad.json')


def test_growth_on_little(tmp_path):
    little = replace(grown, largest=10_000, settings={'epochs': 1})
    assert benchmark_growth([little], (20_000,)) == []                       # nobody: nothing is made
    more = replace(grown, largest=20_000, settings={'epochs': 2})
    runs = benchmark_growth([more, little], (20_000,), log=quiet)
    assert len(runs) == 1 and runs[0]['n'] == 20_000 and runs[0]['epoch_s'] == runs[0]['fit_s']/2
    assert .5 < runs[0]['floor'] < .8 and runs[0]['mse'] > runs[0]['floor']


def test_growth_at_equal_time(tmp_path):
    "the others run again with as many epochs as fit into the first one's seconds; not at all where none fits"
    file = tmp_path/'sleeps.py'
    file.write_text('import time\ndef load(train): return train.rating.mean()\n'
                    'def fit(data, epochs, nap):\n    time.sleep(nap*epochs)\n    return data\n'
                    'def predict(model, valid): return [model]*len(valid)\n')

    def sleeper(name, epochs, nap):
        return Contender(name, 'course', file, dict(epochs=epochs, nap=nap), largest=20_000)
    several = [sleeper('first', 2, .5), sleeper('quick', 1, .25), sleeper('slow', 1, 3.)]
    runs = benchmark_growth(several, (20_000,), equal_time=True, log=quiet)
    assert [r['contender'] for r in runs] == ['first', 'quick', 'slow', 'quick']
    assert runs[-1]['equal'] and runs[-1]['epochs'] in (3, 4) and 'equal' not in runs[1]


def test_the_kept_results():
    """nobody typed them: every contender is there, by its present name and with its present lines, on every
    split"""
    res = load_results(kept)
    runs = pd.DataFrame(res['accuracy']['runs'])
    assert set(runs.contender) == {c.name for c in contenders}
    asked = {c.name: c.splits or 10 for c in contenders}
    assert runs.groupby('contender').split.nunique().to_dict() == asked and runs.mse.notna().all()
    assert runs.drop_duplicates('contender').set_index('contender').lines.to_dict() == {
        c.name: c.lines for c in contenders
    }
    assert {c.name for c in ranking_contenders} == {r['contender'] for r in res['ranking']['runs']}
    assert {r['n'] for r in res['growth']['runs'] if r['group'] == 'course'} == set(growth_sizes)
    assert '/' not in json.dumps([r.get('error', '') for part in res.values() for r in part['runs']])


def test_the_kept_tuning_is_what_is_run():
    "everybody with a grid was tried within the budget, and runs with what did best"
    runs = load_results(kept)['tuning']['runs']
    best = best_settings(runs)
    for c in read_contenders('tuning'):
        tried = [run['settings'] for run in runs if run['contender'] == c.name]
        grid = [{name: tried.settings[name] for name in c.grid} for tried in settings_tried(c)]
        assert tried and all(settings in grid for settings in tried), c.name
        assert best[c.name].items() <= c.settings.items(), c.name


def test_quick_from_the_command_line(ml, tmp_path):
    run = call('--quick', '--out', str(tmp_path/'q.json'))
    assert run.returncode == 0, run.stderr
    assert 'nobody is more accurate and faster than' in run.stdout and '4 + weight decay' in run.stdout
    res = load_results(tmp_path/'q.json')
    assert set(res) == {'accuracy', 'ranking', 'growth'}
    assert .80 < benchmark_table(res['accuracy']['runs']).mse['4 + weight decay'] < .845


@pytest.mark.parametrize('args, words', [
    (['--install'], '--environments DIR'), (['--environments', 'none'], 'no such folder'),
    (['--out', 'none/r.json'], 'cannot be written'), (['--out', '.'], 'cannot be written'),
    (['--only', 'nobody'], "nobody in accuracy"), (['--quick', '--only', 'myFM'], '--quick'),
    (['--parts', 'speed'], 'invalid choice'), (['--splits', '0'], 'at least 1')])
def test_unusable(args, words, tmp_path):
    run = call(*args, cwd=tmp_path)
    assert (
        run.returncode == 2
        and words in run.stderr
        and run.stderr.count('\n') == 1
        and not list(tmp_path.iterdir())
    )
