"The command, as a user calls it."
import subprocess, sys

import numpy as np, pandas as pd, pytest

from collab_course.synthetic import synthetic_ratings


def call(*args, cwd=None, timeout=300):
    return subprocess.run(
        [
            sys.executable,
            '-c',
            'import sys; from collab_course.cli import main; sys.exit(main())',
            *map(str, args),
        ],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
    )


@pytest.fixture
def csv(tmp_path):
    synthetic_ratings(30, 20, 300).ratings.to_csv(tmp_path/'mine.csv', index=False)
    return tmp_path/'mine.csv'


def test_progression_writes_everything(csv, tmp_path):
    run = call(
        'progression',
        '--data',
        csv,
        '--recipe',
        'fast',
        '--epochs',
        1,
        '--seeds',
        2,
        '--out',
        tmp_path / 'a' / 'b',
    )
    assert run.returncode == 0, run.stderr
    assert '5 own embedding' in run.stdout and 'epoch 1/1' in run.stdout and '±' in run.stdout
    assert sorted(p.name for p in (tmp_path / 'a' / 'b').iterdir()) == [
        'curves.png',
        'history.csv',
        'progression.csv',
        'progression.png',
    ]
    assert pd.read_csv(tmp_path/'a'/'b'/'progression.csv').shape == (7, 10)
    assert (tmp_path/'a'/'b'/'curves.png').read_bytes()[:4] == b'\x89PNG'


def test_synthetic_needs_no_network(tmp_path):
    run = call('progression', '--data', 'synthetic', '--recipe', 'fast', '--epochs', 1)
    assert run.returncode == 0 and 'best possible MSE' in run.stdout


@pytest.mark.parametrize(
    'args, words',
    [
        (['progression', '--data', 'none.csv'], 'neither the name of a data set'),
        (['progression', '--epochs', '0'], 'at least 1'),
        (['progression', '--seeds', 'x'], 'at least 1'),
        (['progression', '--recipe', 'slow'], 'invalid choice'),
        (['progression', '--what'], 'unrecognized'),
        (['fly'], 'invalid choice'),
    ],
)
def test_unusable_arguments(args, words, tmp_path):
    run = call(*args, cwd=tmp_path)
    assert (
        run.returncode == 2
        and run.stdout == ''
        and words in run.stderr
        and run.stderr.count('\n') == 1
        and 'Traceback' not in run.stderr
    )


@pytest.mark.parametrize(
    'text, words',
    [
        (
            'user,item,rating\n1,a,5\n2,b,five\n',
            "column 'rating': 1 of 2 values not a finite number, first row 1 ('five')",
        ),
        ('user,item,rating\n1,,5\n', "column 'item': 1 of 1 values missing"),
        ('', 'empty'),
        ('user,item\n1,2\n', 'no column for the rating'),
        ('user,item,rating\n1,a,5\n', 'too few'),
        ('user,item,rating\n1,a,5\n1,b,4,3\n', 'not a CSV file of ratings'),
        ('user,item,rating\n1,a,5,9\n2,b,4,3\n', 'not a CSV file of ratings'),
    ],
)
def test_unusable_files_leave_nothing(text, words, tmp_path):
    (tmp_path/'r.csv').write_text(text)
    run = call('progression', '--data', tmp_path/'r.csv', '--out', tmp_path/'new'/'deep')
    assert (
        run.returncode == 2
        and words in run.stderr
        and run.stderr.count('\n') == 1
        and 'Traceback' not in run.stderr
    )
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
    heavy = ('import sys; from collab_course.cli import main\nmain(["--help"])\nprint([m for m in '
             '("torch", "pandas", "numpy", "fastai", "matplotlib") if m in sys.modules])')
    assert subprocess.run([sys.executable, '-c', heavy], capture_output=True, text=True).stdout.endswith(
        '[]\n'
    )


def test_a_folder_in_the_way_is_found_out_first(csv, tmp_path):
    (tmp_path/'out'/'progression.csv').mkdir(parents=True); (tmp_path/'out'/'curves.png').write_text('mine')
    run = call('progression', '--data', csv, '--out', tmp_path/'out')
    assert run.returncode == 2 and 'progression.csv is a folder' in run.stderr and 'epoch' not in run.stdout
    assert (
        sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['curves.png', 'progression.csv']
        and (tmp_path / 'out' / 'curves.png').read_text() == 'mine'
    )


def test_a_closed_pipe_does_not_lose_the_results(csv, tmp_path):
    code = 'import sys; from collab_course.cli import main; sys.exit(main())'
    args = [
        sys.executable,
        '-c',
        code,
        'progression',
        '--data',
        str(csv),
        '--recipe',
        'fast',
        '--epochs',
        '1',
        '--out',
        str(tmp_path / 'out'),
    ]
    run = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run.stdout.readline(); run.stdout.close()
    assert run.wait(120) == 0 and (tmp_path/'out'/'progression.csv').exists(), run.stderr.read()


def test_repeated_pairs_are_said_in_one_line(tmp_path):
    r = synthetic_ratings(10, 10, 40).ratings
    pd.concat([r, r.head(3)]).to_csv(tmp_path/'r.csv', index=False)
    run = call('progression', '--data', tmp_path/'r.csv', '--recipe', 'fast', '--epochs', 1)
    assert (
        run.returncode == 0
        and run.stderr
        == 'collab-course: 3 rows repeat a (user, item) pair: the last rating of each pair is kept\n'
    )


# From a file to a list

def said(capsys, *args, status=0):
    from collab_course.cli import main
    capsys.readouterr()
    assert main([*map(str, args)]) == status
    return capsys.readouterr()


@pytest.fixture(scope='module')
def films(tmp_path_factory):
    "A folder with a trained model of made ratings whose items have titles, and the ratings"
    from collab_course.cli import main
    folder = tmp_path_factory.mktemp('films')
    r = synthetic_ratings(40, 30, 600).ratings
    r = r.assign(item=[f'Film {i}, The ({1970 + i})' for i in r['item']], user='u' + r.user.astype(str))
    r.assign(time=range(len(r))).to_csv(folder/'ratings.csv', index=False)
    assert main(['train', str(folder/'ratings.csv'), '--out', str(folder/'model'), '--epochs', '2']) == 0
    return folder


def test_help_and_version(capsys):
    for args in ((), ('--help',)): assert 'exit status: 0' in said(capsys, *args).out
    assert said(capsys, '--version').out.strip() == __import__('collab_course').__version__
    for command in (
        'train',
        'recommend',
        'similar',
        'predict',
        'evaluate',
        'update',
        'info',
        'progression',
        'benchmark',
    ):
        text = said(capsys, command, '--help').out
        # a description
        assert f'usage: collab-course {command}' in text and len(text.split('\n\n')[1]) > 20
    run = subprocess.run([sys.executable, '-m', 'collab_course', 'fly'], capture_output=True, text=True)
    assert run.returncode == 2 and 'invalid choice' in run.stderr


def test_train_says_what_it_read_and_compares(films, tmp_path, capsys):
    out = said(capsys, 'train', films/'ratings.csv', '--out', tmp_path/'m').out.splitlines()
    assert out[0].startswith('600 ratings by 40 users of 30 items, from ') and 'in batches of 32' in out[1]
    assert (
        'always the mean: ' in out[2]
        and 'biases alone: ' in out[2]
        and 'trained again on all ratings' in out[3]
        and 'written to' in out[4]
    )
    from collab_course.saving import Recommender
    assert Recommender.load(tmp_path/'m').rated.trained.all()
    out = said(
        capsys, 'train', films / 'ratings.csv', '--out', tmp_path / 'm', '--keep-held-out', '--time', 'time'
    ).out
    assert 'trained again' not in out and Recommender.load(tmp_path/'m').rated.trained.sum() == 540
    assert (
        "has no column 'when'"
        in said(
            capsys, 'train', films / 'ratings.csv', '--out', tmp_path / 'n', '--time', 'when', status=2
        ).err
    )
    assert (
        '--device cuda:77: there is none'
        in said(
            capsys, 'train', films / 'ratings.csv', '--out', tmp_path / 'n', '--device', 'cuda:77', status=2
        ).err
    )
    from collab_course.cli import _said
    errors = dict(rmse=1.2, mean=1.1, biases=1.05, held_out=50)
    assert 'no better than always saying the mean' in _said(errors) and 'no better' not in _said(
        errors | dict(rmse=1.0)
    )


def test_reading_options(tmp_path, capsys):
    rows = [f"u{u}|film {i}|{1 + (u + i) % 4}|{u*i}" for u in range(8) for i in range(8)]
    (tmp_path/'r.csv').write_text('\n'.join(rows), encoding='utf-16')
    options = ('--sep', '|', '--encoding', 'utf-16', '--no-header', '--valid', 0)
    out = said(capsys, 'train', tmp_path/'r.csv', '--out', tmp_path/'m', *options).out
    assert out.startswith('64 ratings by 8 users of 8 items, from 1 to 4')
    (tmp_path/'s.csv').write_text('\n'.join(['a;b;c;d', *rows]).replace('|', ';'))
    out = said(
        capsys,
        'train',
        tmp_path / 's.csv',
        '--out',
        tmp_path / 'm',
        '--valid',
        0,
        '--user',
        'b',
        '--item',
        'a',
        '--rating',
        'c',
        '--missing',
        4,
    ).out
    assert 'from 1 to 3' in out and '16 not rated' in out
    (tmp_path/'mine.csv').write_text('Title,Stars\n' + '\n'.join(f'Film {k},{1 + k % 5}' for k in range(12)))
    err = said(capsys, 'train', tmp_path/'mine.csv', '--out', tmp_path/'n', status=2).err
    assert "one person's list" in err and '--rated-from' in err and not (tmp_path/'n').exists()


def test_somebodys_own_list(films, tmp_path, capsys):
    (tmp_path / 'mine.csv').write_text(
        'Date,Name,Year,Letterboxd URI,Rating\n'
        + ''.join(f'2023-01-01,The Film {i},{1970 + i},https://boxd.it/x,{i % 5}.5\n' for i in range(6))
        + '2023-01-01,Cats,2019,https://boxd.it/y,1\n'
    )
    got = said(capsys, 'recommend', films/'model', '--rated-from', tmp_path/'mine.csv', '-n', 3)
    assert got.out.count('\n') == 4 and "6 of 7 titles are known; not 'Cats (2019)'" in got.err
    assert not [i for i in range(6) if f'Film {i}, The' in got.out]
    assert (
        'give one of them'
        in said(
            capsys,
            'recommend',
            films / 'model',
            '--rated-from',
            tmp_path / 'mine.csv',
            '--user',
            'u1',
            status=2,
        ).err
    )
    assert (
        'no such file'
        in said(capsys, 'recommend', films / 'model', '--rated-from', tmp_path / 'none.csv', status=2).err
    )


def test_lists_for_all_predict_evaluate_update_info(films, tmp_path, capsys):
    import json

    assert (
        'rows for 40 users'
        in said(capsys, 'recommend', films / 'model', '--all', '-n', 5, '--out', tmp_path / 'l.csv').out
    )
    lists = pd.read_csv(tmp_path/'l.csv')
    assert (
        150 < len(lists) <= 200
        and lists.user.value_counts().max() == 5
        and not lists.duplicated(['user', 'item']).any()
        and list(lists) == ['user', 'item', 'predicted']
    )
    assert '--out FILE' in said(capsys, 'recommend', films/'model', '--all', status=2).err
    got = json.loads(
        said(capsys, 'predict', films / 'model', '--user', 'u7', '--item', 'Film 3, The (1973)', '--json').out
    )
    assert got['user'] == 'u7' and len(got['items']) == 1
    got = json.loads(said(capsys, 'evaluate', films/'model', films/'ratings.csv', '--json').out)
    assert got['known'] == 600 and 0 < got['mae'] < got['rmse'] < 2*got['rmse_of_the_mean']
    (tmp_path / 'later.csv').write_text(
        'item,user,stars\n' + ''.join(f'"Film {i}, The ({1970 + i})",new,{1 + i % 5}\n' for i in range(12))
    )
    assert (
        '41 users and 30 items, 612 ratings'
        in said(capsys, 'update', films / 'model', tmp_path / 'later.csv', '--out', tmp_path / 'm').out
    )
    got = json.loads(said(capsys, 'info', tmp_path/'m', '--json').out)
    assert (got['users'], got['ratings'], got['model']) == (
        41,
        612,
        'DotProductBias',
    ) and 'DotProductBias' in said(capsys, 'info', tmp_path / 'm').out


def test_ids_that_begin_with_a_dash(tmp_path, capsys):
    r = synthetic_ratings(20, 15, 200).ratings
    r.assign(user='-K' + r.user.astype(str), item='-0b' + r['item'].astype(str)).to_csv(
        tmp_path / 'r.csv', index=False
    )
    said(capsys, 'train', tmp_path/'r.csv', '--out', tmp_path/'m', '--valid', 0)
    assert (
        said(capsys, 'recommend', tmp_path / 'm', '--user', '-K3', '-n', 2, '--include-seen').out.count('\n')
        == 3
    )
    assert said(capsys, 'recommend', tmp_path/'m', '--rated', '-0b3=4', '-n', 2).out.count('\n') == 3
    assert (
        'put what begins with a dash behind --'
        in said(capsys, 'similar', tmp_path / 'm', '-0b3', status=2).err
    )
    assert said(capsys, 'similar', tmp_path/'m', '-n', 2, '--', '-0b3').out.count('\n') == 2


def test_a_folder_whose_name_has_two_lines(capsys):
    assert said(capsys, 'info', 'a\nb', status=2).err.count('\n') == 1


# Models that rank

@pytest.fixture(scope='module')
def plays(tmp_path_factory):
    "Who played what, in two tables: users and items that are both even or both odd, and no stars"
    folder = tmp_path_factory.mktemp('plays')
    def played(users, items):
        return [(f'u{u}', f'song {i}') for u in users for i in items if (u + i) % 2 == 0]
    first, later = played(range(40), range(30)), played(range(40, 46), range(34))
    for name, rows in (('first', first), ('later', later)):
        table = pd.DataFrame(rows, columns=['user', 'item']).sample(frac=1, random_state=0)
        table.assign(time=range(len(table))).to_csv(folder/f'{name}.csv', index=False)
    return folder


@pytest.mark.parametrize('model', ['popularity', 'ease', 'mult-dae'])
def test_a_ranker_from_file_to_list_and_later(model, plays, tmp_path, capsys):
    import json
    epochs = ['--epochs', 30] if model == 'mult-dae' else []
    out = said(capsys, 'train', plays/'first.csv', '--model', model, '--out', tmp_path/'r', *epochs).out
    assert '600 pairs of 40 users and 30 items' in out and 'nDCG@10' in out and 'trained again on all' in out
    for args in (['--user', 'u7'], ['--rated', 'song 1', '--rated', 'song 3=5']):
        got = said(capsys, 'recommend', tmp_path/'r', *args, '-n', 4, '--include-seen', '--json')
        items = json.loads(got.out)['items']
        assert len(items) == 4 and list(items[0]) == ['item', 'score'] and got.err == ''
        if model != 'popularity': assert all(int(row['item'].split()[1]) % 2 == 1 for row in items)
    done = said(capsys, 'update', tmp_path/'r', plays/'later.csv', '--out', tmp_path/'new').out
    assert '46 users and 34 items, 702 ratings' in done
    shown = said(capsys, 'recommend', tmp_path/'new', '--user', 'u45', '--include-seen', '-n', 40).out
    assert shown.splitlines()[0].split() == ['score', 'item'] and 'song 33' in shown
    assert 'score' in said(capsys, 'predict', tmp_path/'new', '--user', 'u45', '--item', 'song 33').out


def test_lists_are_measured_on_what_came_later(plays, tmp_path, capsys):
    import json
    rows = pd.read_csv(plays/'first.csv')
    rows[:480].to_csv(tmp_path/'a.csv', index=False)
    rows[480:].to_csv(tmp_path/'b.csv', index=False)
    got = json.loads(said(capsys, 'train', tmp_path/'a.csv', '--model', 'ease', '--time', 'time',
                          '--out', tmp_path/'r', '--json').out)
    assert got['held_out'] == 48 and got['ndcg_of_popularity'] < got['ndcg'] <= 1
    got = json.loads(said(capsys, 'evaluate', tmp_path/'r', tmp_path/'b.csv', '--json').out)
    assert got['ratings'] == 120 and got['ndcg'] > .9 > got['ndcg_of_popularity']
    assert 'nDCG@10' in said(capsys, 'evaluate', tmp_path/'r', tmp_path/'b.csv').out
    kept = said(capsys, 'train', tmp_path/'a.csv', '--model', 'ease', '--keep-held-out',
                '--out', tmp_path/'r')
    assert 'trained again' not in kept.out
    assert json.loads(said(capsys, 'info', tmp_path/'r', '--json').out)['trained_on'] == 432


@pytest.mark.parametrize('args, words', [
    (['--model', 'ease', '--epochs', 3], '--epochs is of no use to ease'),
    (['--model', 'popularity', '--recipe', 'fast'], '--recipe is of no use to popularity'),
    (['--model', 'mult-dae', '--recipe', 'fast'], '--recipe is of no use to mult-dae'),
    (['--model', 'ease', '--log1p'], '--log1p: a model that ranks does not look at ratings'),
    (['--model', 'net'], 'no column for the rating'),
])
def test_what_a_ranker_has_no_use_for(args, words, plays, tmp_path, capsys):
    err = said(capsys, 'train', plays/'first.csv', '--out', tmp_path/'r', *args, status=2).err
    assert words in err and err.count('\n') == 1 and not (tmp_path/'r').exists()


def test_lists_of_ratings_are_called_poor(films, capsys):
    got = said(capsys, 'recommend', films/'model', '--user', 'u7', '-n', 3)
    assert got.out.splitlines()[0].split() == ['predicted', 'item'] and 'EASE' in got.err
    assert 'should be ITEM=RATING' in said(capsys, 'recommend', films/'model', '--rated', 'x', status=2).err


# The model that says how sure it is

@pytest.fixture(scope='module')
def timed(tmp_path_factory):
    "A folder with made ratings, whose times are a date in `day`, seconds in `time` and nothing in `bare`"
    folder = tmp_path_factory.mktemp('timed')
    r = synthetic_ratings(40, 30, 600).ratings
    r = r.assign(item='film ' + r['item'].astype(str), user='u' + r.user.astype(str))
    seconds = 978_300_000 + 40*np.arange(len(r))
    r.to_csv(folder/'bare.csv', index=False)
    r.assign(time=seconds).to_csv(folder/'time.csv', index=False)
    r.assign(day=pd.to_datetime(seconds, unit='s')).to_csv(folder/'day.csv', index=False)
    return folder


@pytest.fixture(scope='module')
def sure(timed):
    "The seventh model of these ratings"
    from collab_course.cli import main
    assert main(['train', str(timed/'time.csv'), '--model', 'bayes', '--out', str(timed/'sure')]) == 0
    return timed/'sure'


def test_the_seventh_model_says_how_sure_it_is(timed, tmp_path, capsys):
    import json
    from collab_course.saving import Recommender
    train = 'train', timed/'time.csv', '--model', 'bayes', '--out', tmp_path/'m'
    out = said(capsys, *train).out.splitlines()
    assert out[1] == 'fitting bayes in closed form, with the times of the ratings'
    assert out[2].startswith('RMSE ') and 'biases alone: ' in out[2] and 'told when they were given' in out[2]
    assert 'trained again on all' in out[3] and out[4].startswith('noise ±') and 'written to' in out[5]
    got = json.loads(said(capsys, *train, '--keep-held-out', '--json').out)
    rec = Recommender.load(tmp_path/'m')
    assert got['held_out'] == 60 and 0 < got['noise'] == round(rec.model.rating_noise, 4)
    assert 0 < got['rmse'] < got['rmse_of_the_mean'] and 0 < got['rmse_at_known_times']
    assert rec.model.n_sittings and rec.rated.trained.sum() == 540
    kept = said(capsys, *train, '--seed', 3, '--valid', 0).out.splitlines()
    assert len(kept) == 4 and kept[2].startswith('noise ±')
    got = json.loads(said(capsys, *train, '--valid', 0, '--json').out)
    assert got['rmse'] is None and got['rmse_at_known_times'] is None and got['noise'] > 0


def test_times_are_used_where_the_file_has_them(timed, tmp_path, capsys):
    from collab_course.saving import Recommender
    def trained(file, *args):
        train = 'train', timed/file, '--model', 'bayes', '--valid', 0, '--out', tmp_path/'m'
        return said(capsys, *train, *args).out, Recommender.load(tmp_path/'m').model
    out, model = trained('bare.csv')
    assert 'without times: not every rating has one' in out and model.n_sittings == 0
    _, by_seconds = trained('time.csv')
    out, by_date = trained('day.csv', '--time', 'day')
    assert 'with the times' in out and by_date.n_sittings == by_seconds.n_sittings > 0
    assert (by_date.sittings.key == by_seconds.sittings.key).all()
    out, model = trained('day.csv')                               # no column is called like a time
    assert 'without times' in out and model.n_sittings == 0


def test_lists_of_the_seventh_model_in_every_order(sure, tmp_path, capsys):
    import json
    from collab_course.saving import Recommender
    rec = Recommender.load(sure)
    for by in ('mean', 'sure', 'curious'):
        got = said(capsys, 'recommend', sure, '--user', 'u7', '--by', by, '-n', 4, '--json')
        want = rec.recommend('u7', 4, by=by)
        assert [row['item'] for row in json.loads(got.out)['items']] == want['item'].tolist()
        new = said(capsys, 'recommend', sure, '--rated', 'film 1=5', '--by', by, '-n', 4).out.splitlines()
        assert new[0].split() == ['predicted', 'sd', 'item'] and len(new) == 5 and '±' in new[1]
        said(capsys, 'recommend', sure, '--all', '--by', by, '-n', 4, '--out', tmp_path/f'{by}.csv')
        mine = pd.read_csv(tmp_path/f'{by}.csv').query('user == "u7"')
        assert mine['item'].tolist() == want['item'].tolist() and list(mine)[-2:] == ['predicted', 'sd']
    assert '±' in said(capsys, 'predict', sure, '--user', 'u7', '--item', 'film 3').out
    assert 'BayesianMF' in said(capsys, 'info', sure).out


def test_the_seventh_model_later_and_as_a_page(timed, sure, tmp_path, capsys):
    import json
    rows = ''.join(f'new,film {i},{1 + i % 5},9783{i:05}\n' for i in range(12))
    (tmp_path/'later.csv').write_text('user,item,rating,time\n' + rows)
    done = said(capsys, 'update', sure, tmp_path/'later.csv', '--out', tmp_path/'m').out
    assert 'BayesianMF for 41 users and 30 items, 612 ratings' in done
    got = json.loads(said(capsys, 'recommend', tmp_path/'m', '--user', 'new', '--by', 'sure', '--json').out)
    assert len(got['items']) == 10 and all(row['sd'] > 0 for row in got['items'])
    got = json.loads(said(capsys, 'evaluate', tmp_path/'m', timed/'time.csv', '--json').out)
    assert got['known'] == 600 and got['rmse'] < got['rmse_of_the_mean']
    assert 'makes no connection' in said(capsys, 'page', sure, '--out', tmp_path/'p.html').out
    assert (tmp_path/'p.html').read_text().lstrip().lower().startswith('<!doctype html>')


@pytest.mark.parametrize('option', [('--epochs', 3), ('--recipe', 'fast')])
def test_what_the_seventh_model_has_no_use_for(option, timed, tmp_path, capsys):
    train = 'train', timed/'time.csv', '--model', 'bayes', '--out', tmp_path/'m'
    err = said(capsys, *train, *option, status=2).err
    assert err == f'collab-course: {option[0]} is of no use to bayes: leave it out\n'
    assert not (tmp_path/'m').exists()
