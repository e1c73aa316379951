"The script that measures on a GPU, in its small form on the CPU: what it writes, and what a failure leaves."
import importlib.util, json, os, subprocess, sys
from pathlib import Path

import pytest

from collab_course.cuda_figures import *

root = Path(__file__).resolve().parent.parent
ci = root/'.ci'
if not (ci/'cuda.py').exists(): pytest.skip('the scripts are in the repository only', allow_module_level=True)


def script(name):
    "A script of `.ci` as a module"
    spec = importlib.util.spec_from_file_location(name, ci/f'{name}.py')
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope='module')
def trial(tmp_path_factory):
    "A whole run on the CPU, in which one part is given no time → (the file, what was printed)"
    file = tmp_path_factory.mktemp('cuda')/'cuda.json'
    command = ['bash', ci/'cuda.sh', 'run', file, '--device', 'cpu', '--small',
               '--skip', 'two', '--skip', 'tests', '--limit', 'original=0.05']
    env = {**os.environ, 'PYTHON': sys.executable}
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return file, run.stdout


def of(runs, **what): return [r for r in runs if what.items() <= r.items()]


def test_fields(trial):
    res = json.loads(trial[0].read_text())
    assert {'date', 'device', 'small', 'done', 'seconds', 'machine', 'bars', 'runs'} == res.keys()
    assert (res['device'], res['small'], res['done']) == ('cpu', True, True)
    assert res['machine']['cards'] == [] and 'torch' in res['machine']['versions']
    runs = res['runs']
    for part, n in dict(fast=6, sixth=1, ranking=2, mixed=2, saving=2, loading=2, speed=2, scale=1).items():
        sides = [len(of(runs, part=part, on=on)) for on in ('device', 'cpu')]
        absent = {'mixed': [n, 0], 'saving': [n, 0], 'loading': [0, n]}
        assert sides == absent.get(part, [n, n]), part
    for r in runs:
        if 'model' in r and r['part'] != 'loading': assert r['seconds'] > 0
    for part in ('speed', 'scale', 'sixth'): assert all(r['peak_mib'] > 100 for r in of(runs, part=part))
    [growth] = of(runs, part='scale', on='device')
    assert growth['n'] == 20_000 and growth['epoch_s'] > 0 and growth['of_the_noise'] > 1


def test_bars(trial):
    bars = json.loads(trial[0].read_text())['bars']
    same = "MSE within the CPU's band", 'saved on the device, loaded on the CPU', 'mixed precision'
    for name in same: assert bars[name]['passed'] and bars[name]['value'] < 1e-6, name
    assert [bars[name]['limit'] for name in same] == [.003, 1e-4, .003]
    assert bars['seconds an epoch of 25 million']['limit'] == 5
    assert bars['MSE over the noise, 25 million']['limit'] == 1.05
    assert all(f'{name}: ' in trial[1] for name in bars)


def test_a_part_that_is_given_up_loses_no_other(trial):
    res = json.loads(trial[0].read_text())
    for on in ('device', 'cpu'):
        rows = of(res['runs'], part='original', on=on)
        assert rows[-1]['error'] == 'not done after 0.05 s' and len(rows) < 7
    assert len(of(res['runs'], part='scale', on='cpu')) == 1                         # it comes later
    assert 'error:  original' in trial[1]


def test_a_part_that_raises_loses_no_other(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ci))
    import cuda_parts
    def broken(setting):
        yield dict(model='before', mse=1.)
        raise ZeroDivisionError('there')
    monkeypatch.setitem(cuda_parts.PARTS, 'fast', broken)
    file = tmp_path/'rows'
    job = dict(parts=['fast', 'seventh'], device='cpu', on='cpu', seed=3, small=True, folder='')
    script('cuda').work(job | dict(file=str(file)))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [r.get('error') for r in rows if r.get('part') == 'fast'] == [None, 'ZeroDivisionError: there']
    assert [r['ended'] for r in rows if 'ended' in r] == ['fast', 'seventh']


def test_a_process_that_dies_is_started_again(tmp_path, monkeypatch):
    "It cannot even begin: each of its parts says why, and the run goes on"
    cuda = script('cuda')
    monkeypatch.setattr(cuda, 'here', tmp_path/'broken.py')
    (tmp_path/'broken.py').write_text('raise SystemExit("no card was found")')
    run = cuda.Run(tmp_path/'cuda.json', 'cpu', True, 60, {}, [], tmp_path)
    run.together(cuda.Worker(run, 'cpu', 0, ['fast', 'sixth']))
    errors = {r['part']: r['error'] for r in json.loads((tmp_path/'cuda.json').read_text())['runs']}
    assert errors == dict.fromkeys(['fast', 'sixth'], 'ended with 1: no card was found')
    late = cuda.Run(tmp_path/'late.json', 'cpu', True, 0, {}, [], tmp_path)
    late.together(cuda.Worker(late, 'cpu', 0, ['fast', 'sixth']))
    late.command('tests', [sys.executable, '-V'], os.environ, lambda code, said: {})
    assert [r['error'] for r in late.rows] == ['the time was up']*3


def test_a_trial_is_no_figure(trial):
    assert cuda_figures(trial[0]) is None
    as_if = json.loads(trial[0].read_text())
    as_if |= dict(small=False, machine=as_if['machine'] | dict(cards=[dict(name='A card')]))
    trial[0].with_name('card.json').write_text(json.dumps(as_if))
    figures = cuda_figures(trial[0].with_name('card.json'))
    table = cuda_table(figures)
    assert {'mse', 'seconds'} <= set(table.columns.get_level_values(0)) and 'A card' in cuda_sentence(figures)
    assert table['seconds'].loc['scale'].notna().all(axis=None)


def test_tests_are_counted(tmp_path):
    cuda = script('cuda')
    run = cuda.Run(tmp_path/'cuda.json', 'cpu', True, 60, {}, [], tmp_path)
    (tmp_path/'test_it.py').write_text('def test_a(): pass\ndef test_b(): assert 1 == 2\n')
    run.command('tests', [sys.executable, '-m', 'pytest', '-q', '-rfE', tmp_path], cuda.variables('cpu'),
                cuda.summary_of_tests)
    [row] = run.rows
    assert (row['passed'], row['failed']) == (1, 1) and 'test_b' in row['failures'][0] and row['seconds'] > 0
    assert json.loads((tmp_path/'cuda.json').read_text())['bars']['tests']['value'] == 1
    assert {'-m', 'cuda', str(root/'tests')} <= set(cuda.tests(small=False))


def test_what_pytest_said():
    summary = script('cuda').summary_of_tests
    said = 'FAILED tests/test_x.py::test_y - boom\n1 failed, 40 passed, 2 skipped, 3 deselected in 9.1s\n'
    row = summary(1, said)
    assert (row['passed'], row['failed'], row['skipped'], row['errors']) == (40, 1, 2, 0)
    assert row['failures'] == ['FAILED tests/test_x.py::test_y - boom'] and 'error' not in row
    assert 'ended with 3' in summary(3, 'crash')['error']


def made(part, on, seed, **measured): return dict(part=part, on=on, seed=seed, **measured)


def test_bars_compare_the_same_seeds():
    runs = [made('fast', on, seed, model='4 + weight decay', mse=mse)
            for on, values in (('device', (.82, .84)), ('cpu', (.81, .84, .99)))
            for seed, mse in enumerate(values)]
    runs += [made('mixed', 'device', 1, model='4 + weight decay', mse=.85)]
    bars = script('cuda').bars(runs, 'cuda')
    assert bars["MSE within the CPU's band"]['value'] == pytest.approx(.005)
    assert not bars["MSE within the CPU's band"]['passed']
    assert bars['mixed precision']['value'] == pytest.approx(.01) and not bars['mixed precision']['passed']
    assert not bars['tests']['passed'] and 'two processes' not in bars
    skipped = made('tests', 'device', None, passed=0, failed=0, errors=0)
    assert not script('cuda').bars([skipped], 'cuda')['tests']['passed'], 'on a card they have to run'


def test_wheels_that_are_missing(tmp_path):
    for name in ('pytest-9.0-py3-none-any.whl', 'no_such_thing-1.0-py3-none-any.whl'): (tmp_path/name).touch()
    command = [sys.executable, ci/'cuda.py', 'missing', tmp_path]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(tmp_path/'no_such_thing-1.0-py3-none-any.whl')]
