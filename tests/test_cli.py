"The command, as a user calls it."
import subprocess, sys

import pandas as pd, pytest

from collab_course.synthetic import synthetic_ratings


def call(*args, cwd=None, timeout=300):
    return subprocess.run([sys.executable, '-c', 'import sys; from collab_course.cli import main; sys.exit(main())', *map(str, args)],
                          capture_output=True, text=True, cwd=cwd, timeout=timeout)


@pytest.fixture
def csv(tmp_path):
    synthetic_ratings(30, 20, 300).ratings.to_csv(tmp_path/'mine.csv', index=False)
    return tmp_path/'mine.csv'


def test_progression_writes_everything(csv, tmp_path):
    run = call('progression', '--data', csv, '--recipe', 'fast', '--epochs', 1, '--seeds', 2, '--out', tmp_path/'a'/'b')
    assert run.returncode == 0, run.stderr
    assert '5 own embedding' in run.stdout and 'epoch 1/1' in run.stdout and '±' in run.stdout
    assert sorted(p.name for p in (tmp_path/'a'/'b').iterdir()) == ['curves.png', 'history.csv', 'progression.csv', 'progression.png']
    assert pd.read_csv(tmp_path/'a'/'b'/'progression.csv').shape == (7, 10)
    assert (tmp_path/'a'/'b'/'curves.png').read_bytes()[:4] == b'\x89PNG'


def test_synthetic_needs_no_network(tmp_path):
    run = call('progression', '--data', 'synthetic', '--recipe', 'fast', '--epochs', 1)
    assert run.returncode == 0 and 'best possible MSE' in run.stdout


@pytest.mark.parametrize('args, words', [
    (['progression', '--data', 'none.csv'], 'neither the name of a data set'), (['progression', '--epochs', '0'], 'at least 1'), (['progression', '--seeds', 'x'], 'at least 1'),
    (['progression', '--recipe', 'slow'], 'invalid choice'), (['progression', '--what'], 'unrecognized'), ([], 'required'), (['fly'], 'invalid choice')])
def test_unusable_arguments(args, words, tmp_path):
    run = call(*args, cwd=tmp_path)
    assert run.returncode == 2 and run.stdout == '' and words in run.stderr and run.stderr.count('\n') == 1 and 'Traceback' not in run.stderr


@pytest.mark.parametrize('text, words', [
    ('user,item,rating\n1,a,5\n2,b,five\n', "column 'rating': 1 of 2 values not a finite number, first row 1 ('five')"),
    ('user,item,rating\n1,,5\n', "column 'item': 1 of 1 values missing"), ('', 'empty'), ('user,item\n1,2\n', 'no column for the rating'),
    ('user,item,rating\n1,a,5\n', 'too few'), ('user,item,rating\n1,a,5\n1,b,4,3\n', 'not a CSV file of ratings'), ('user,item,rating\n1,a,5,9\n2,b,4,3\n', 'not a CSV file of ratings')])
def test_unusable_files_leave_nothing(text, words, tmp_path):
    (tmp_path/'r.csv').write_text(text)
    run = call('progression', '--data', tmp_path/'r.csv', '--out', tmp_path/'new'/'deep')
    assert run.returncode == 2 and words in run.stderr and run.stderr.count('\n') == 1 and 'Traceback' not in run.stderr
    assert [p.name for p in tmp_path.iterdir()] == ['r.csv']


def test_unwritable_folder_is_found_out_first(csv):
    run = call('progression', '--data', csv, '--out', csv)
    assert run.returncode == 2 and 'cannot be written' in run.stderr and run.stderr.count('\n') == 1
    assert 'epoch' not in run.stdout


def test_existing_files_survive_a_failure(tmp_path):
    (tmp_path/'out').mkdir(); (tmp_path/'out'/'progression.csv').write_text('mine')
    (tmp_path/'r.csv').write_text('user,item,rating\n1,a,x\n')
    assert call('progression', '--data', tmp_path/'r.csv', '--out', tmp_path/'out').returncode == 2
    assert [(p.name, p.read_text()) for p in (tmp_path/'out').iterdir()] == [('progression.csv', 'mine')]


def test_help_imports_nothing_heavy():
    for args in (['--help'], ['progression', '--help']):
        run = call(*args)
        assert run.returncode == 0 and 'example:' in run.stdout and '--data synthetic' in run.stdout
    heavy = 'import sys; from collab_course.cli import main\ntry: main(["--help"])\nexcept SystemExit: print([m for m in ("torch", "pandas", "numpy", "fastai", "matplotlib") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', heavy], capture_output=True, text=True).stdout.endswith('[]\n')


def test_a_folder_in_the_way_is_found_out_first(csv, tmp_path):
    (tmp_path/'out'/'progression.csv').mkdir(parents=True); (tmp_path/'out'/'curves.png').write_text('mine')
    run = call('progression', '--data', csv, '--out', tmp_path/'out')
    assert run.returncode == 2 and 'progression.csv is a folder' in run.stderr and 'epoch' not in run.stdout
    assert sorted(p.name for p in (tmp_path/'out').iterdir()) == ['curves.png', 'progression.csv'] and (tmp_path/'out'/'curves.png').read_text() == 'mine'


def test_a_closed_pipe_does_not_lose_the_results(csv, tmp_path):
    code = 'import sys; from collab_course.cli import main; sys.exit(main())'
    args = [sys.executable, '-c', code, 'progression', '--data', str(csv), '--recipe', 'fast', '--epochs', '1', '--out', str(tmp_path/'out')]
    run = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run.stdout.readline(); run.stdout.close()
    assert run.wait(120) == 0 and (tmp_path/'out'/'progression.csv').exists(), run.stderr.read()


def test_repeated_pairs_are_said_in_one_line(tmp_path):
    r = synthetic_ratings(10, 10, 40).ratings
    pd.concat([r, r.head(3)]).to_csv(tmp_path/'r.csv', index=False)
    run = call('progression', '--data', tmp_path/'r.csv', '--recipe', 'fast', '--epochs', 1)
    assert run.returncode == 0 and run.stderr == 'collab-course: 3 rows repeat a (user, item) pair: the last rating of each pair is kept\n'
