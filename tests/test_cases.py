"""Tables of the shapes that people really have: public exports, odd files, odd frames. All inputs are made
here."""

import bz2, gzip, io, json, lzma, os, tarfile, zipfile
from pathlib import Path

import numpy as np, pandas as pd, pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from collab_course.columns import *
from collab_course.data import *
from collab_course.errors import *
from collab_course.tables import *

TITLES = ['Red River Road', 'The Quiet Lamp', 'Café Zürich', 'Ocean of Tin', 'Nine Doors', 'Paper Moonlight']
RATED = [(u, i, 1 + (u*i + u) % 5) for u in range(1, 11) for i in range(6) if (u + i) % 4]


def text(form, header='', rows=RATED):
    "A file of made ratings; `form` writes a row from u, i, r and t (the title)"
    lines = [
        form.format(u=u, i=i, r=r, t=TITLES[i], time=978300000 + 100 * k) for k, (u, i, r) in enumerate(rows)
    ]
    return '\n'.join(([header] if header else []) + lines) + '\n'


PLAIN = text('{u},{i},{r}', 'user,item,rating')
SHAPES = {
    'plain': PLAIN,
    'item first': text('{i},{u},{r}', 'item,user,rating'),
    'time third': text('{u},{i},{time},{r}', 'userId,movieId,timestamp,rating'),
    'film and member': text('{i},{u},{r}', 'film,member,stars'),
    'u.data': text('{u}\t{i}\t{r}\t{time}'),
    'ratings.dat': text('{u}::{i}::{r}::{time}'),
    'bars': text('{u}|{i}|{r}', 'user|item|rating'),
    'blanks': text('{u} {i} {r} {time}'),
    'semicolons': text('{u};{i};{r},0', 'Nutzer;Film;Bewertung'),
    'pandas index': '\n'.join(f'{k - 1 if k else ""},{line}' for k, line in enumerate(PLAIN.splitlines()))
    + '\n',
    'RecBole': text('{u}\t{i}\t{r}\t{time}', 'user_id:token\titem_id:token\trating:float\ttimestamp:float'),
    'JSON lines': ''.join(json.dumps(dict(reviewerID=u, asin=i, overall=r)) + '\n' for u, i, r in RATED),
    'JSON': json.dumps([dict(item=i, user=u, rating=r) for u, i, r in RATED]),
}


@pytest.mark.parametrize('shape', SHAPES)
def test_the_same_ratings_in_every_shape(shape, tmp_path):
    (tmp_path/'file').write_text(SHAPES[shape], encoding='utf-8')
    got = read_ratings(tmp_path/'file')
    assert sorted(zip(got.user, got['item'], got.rating)) == sorted(RATED)


@pytest.mark.parametrize('pack', [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'cp1252', 'latin-1'])
def test_compression_and_encoding(pack, encoding, tmp_path):
    (tmp_path/'file').write_bytes(pack(text('{u},"{t}",{r}', 'user,title,rating').encode(encoding)))
    assert set(read_ratings(tmp_path/'file')['item']) == set(TITLES)


def zipped(**files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w') as archive:
        for name, data in files.items(): archive.writestr(name, data)
    return content.getvalue()


def tarred():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode='w') as archive:
        info = tarfile.TarInfo('r.csv'); info.size = len(PLAIN)
        archive.addfile(info, io.BytesIO(PLAIN.encode()))
    return content.getvalue()


@pytest.mark.parametrize(
    'data, words',
    [
        (gzip.compress(PLAIN.encode())[:-20], 'damaged or cut off'),
        (lzma.compress(PLAIN.encode())[:40], 'damaged or cut off'),
        (zipped(), 'holds 0 files'),
        (zipped(a=PLAIN, b=PLAIN), 'holds 2 files'),
        (tarred(), 'tar archive'),
        (b'\x28\xb5\x2f\xfd' + b'x' * 20, 'Zstandard'),
        (b'', 'empty'),
        (b'\n\n', 'empty'),
        (zipped(**{'[Content_Types].xml': '<x/>'}), 'Excel workbook'),
        (b'PAR1xxxx', 'arquet'),
        (b'{"user": 1', 'JSON'),
        (b'[1, 2]', 'no list of objects'),
        (bytes(range(256)), 'no text'),
        (b'a,b,c\n1,2,3\n1,2,3,4\n', 'not a CSV'),
        (b'one\ntwo\n', 'no column'),
        (b'user,item,rating\n', 'empty'),
    ],
)
def test_files_that_are_no_tables(data, words, tmp_path):
    (tmp_path/'file').write_bytes(data)
    with pytest.raises(DataError, match=words): read_ratings(tmp_path/'file')
    with pytest.raises(DataError): read_ratings(tmp_path)


def test_one_file_in_a_zip(tmp_path):
    (tmp_path/'r.zip').write_bytes(zipped(**{'r.csv': PLAIN}))
    assert len(read_ratings(tmp_path/'r.zip')) == len(RATED)


def test_other_containers():
    class Polars:
        def to_pandas(self): return pd.read_csv(io.StringIO(PLAIN))

    for source in (
        RATED,
        [dict(user=u, item=i, rating=r) for u, i, r in RATED],
        dict(zip(('user', 'item', 'rating'), zip(*RATED))),
        np.array(RATED),
        Polars(),
    ):
        assert sorted(
            read_ratings(source)[['user', 'item', 'rating']].itertuples(index=False, name=None)
        ) == sorted(RATED)


# Whose columns

LETTERBOXD = text(
    '2023-08-17,"{t}",{i},https://boxd.it/x{u},{r}.5',
    'Date,Name,Year,Letterboxd URI,Rating',
    [(1, i, 1 + i % 4) for i in range(6)],
)
GOODREADS = text(
    '{i},"{t}",Ann Author,"Author, Ann",="",="",{r},3.9,House,Paperback,300,2001,1999,,2023/05/06,read,'
    'read,,,,1,0',
    'Book Id,Title,Author,Author l-f,ISBN,ISBN13,My Rating,Average Rating,Publisher,Binding,Number of '
    'Pages,Year Published,Original Publication Year,'
    'Date Read,Date Added,Bookshelves,Exclusive Shelf,My Review,Spoiler,Private Notes,Read Count,Owned '
    'Copies',
    [(1, i, i) for i in range(6)],
)
IMDB = text(
    'tt000{i},{r},2023-01-02,"{t}","{t}",https://www.imdb.com,Movie,7.1,100,2001,Drama,12345,2001-05-05,'
    'Somebody',
    'Const,Your Rating,Date Rated,Title,Original Title,URL,Title Type,IMDb Rating,Runtime (mins),Year,'
    'Genres,Num Votes,Release Date,Directors',
    [(1, i, 4 + i) for i in range(6)],
)


@pytest.mark.parametrize(
    'file, items, ratings',
    [
        (
            LETTERBOXD.replace(',0,http', ',1999,http').replace(',1,http', ',2003,http'),
            ['Red River Road (1999)', 'The Quiet Lamp (2003)'],
            [1.5, 2.5],
        ),
        (GOODREADS, TITLES[1:3], [1, 2]),
        (IMDB, [f'{t} (2001)' for t in TITLES[:2]], [4, 5]),
        (text('"{t}",{r}', 'Title,Stars'), TITLES[1:3], None),
    ],
)
def test_one_persons_own_list(file, items, ratings):
    got = read_ratings(io.StringIO(file))
    assert set(got.user) == {ME} and set(items) <= set(got['item'])
    if ratings: assert got.set_index('item').rating[items].tolist() == ratings
    # a rating of 0 is none
    if file is GOODREADS: assert got.attrs['dropped']['not rated'] == 1


def test_columns_without_names_may_be_numbered():
    "The number 0 is a column's name, too"
    rows = pd.DataFrame([('Heat', 5), ('Alien', 3)], columns=[0, 'rating'])
    assert read_ratings(rows.assign(Year=1995), item=0)['item'].tolist() == ['Heat (1995)', 'Alien (1995)']


def test_exports_of_many_people():
    books = read_ratings(
        io.StringIO(
            text('"{u}";"065955472{i}";"{r}"', '"User-ID";"ISBN";"Book-Rating"').replace('"1"\n', '"0"\n')
        )
    )
    assert (
        books['item'].iloc[0].startswith('065955472')
        and books.rating.min() > 0
        and books.attrs['dropped']['not rated'] > 0
    )
    anime = read_ratings(io.StringIO(text('{u},{i},{r}', 'user_id,anime_id,rating').replace(',5\n', ',-1\n')))
    assert anime.rating.min() >= 1 and anime.attrs['dropped']['not rated'] > 0
    for form in ('A0000{u},B00000000{i},{r}.0,{time}', 'B00000000{i},A0000{u},{r}.0,{time}'):
        amazon = read_ratings(io.StringIO(text(form)))
        assert (
            len(amazon) == len(RATED)
            and amazon.user.str.startswith('A').all()
            and amazon['item'].str.startswith('B').all()
        )
    netflix = read_ratings(io.StringIO('1:\n7,3,2005-09-06\n8,5,2005-05-13\n2:\n7,4,2005-10-19\n'))
    assert netflix[['user', 'item', 'rating']].values.tolist() == [[7, 1, 3], [8, 1, 5], [7, 2, 4]]
    hours = [(u, i, 1 + u*i) for u in range(1, 5) for i in range(6)]
    steam = text('15160{u},"{t}",purchase,1.0,0', rows=hours) + text('15160{u},"{t}",play,{r},0', rows=hours)
    assert read_ratings(io.StringIO(steam)).rating.tolist() == [r for *_, r in hours]
    plays = [(u, i, 2**(u + i) + u) for u in range(1, 11) for i in range(6)]
    with pytest.warns(UserWarning, match="look like counts; transform='log1p'"):
        read_ratings(io.StringIO(text('{u}\t{i}\t{r}', 'userID\tartistID\tweight', plays)))
    assert (
        read_ratings(
            io.StringIO(text('{u}\t{i}\t{r}', 'userID\tartistID\tweight', plays)), transform='log1p'
        ).rating.max()
        < 12
    )


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'file, words',
    [
        (
            '\n'.join(
                ['name,' + ','.join(TITLES)]
                + [f'user{u},' + ','.join(str((u + k) % 5 + 1) for k in range(6)) for u in range(9)]
            ),
            'melt',
        ),
        ('\n'.join(f'{u},' + ','.join(f'{(u * k) % 19 - 9}.5' for k in range(9)) for u in range(9)), 'melt'),
        (text('{time},{i},{r}', 'a,b,c', RATED * 2), 'no column|nearly each row'),
        (text('{u},{i},1', 'user,item,liked'), 'read_interactions'),
        (text('{u},{i},{r},3', 'user,item,speed,height'), "which is the rating"),
        (text('{u},{i},{r}', 'user,item,rating').replace(',5\n', ',99\n'), r"missing=99"),
        (PLAIN.replace(',5\n', ',-1\n') + '1,77,3\n', 'not rated|never'),
    ],
)
def test_what_cannot_be_told(file, words):
    # -1 beside 1 to 4: two steps below
    if words.startswith('not rated|'):
        with pytest.raises(DataError, match='missing=-1'): read_ratings(io.StringIO(file))
        return
    with pytest.raises(DataError, match=words): read_ratings(io.StringIO(file))


# Identity and values

def test_ids_are_what_the_file_says():
    got = read_ratings(io.StringIO('user,item,rating\n007,None,5\n7,NA,4\n07,null,3\n12e4,nan,2\n'))
    assert got.user.tolist() == ['007', '7', '07', '12e4'] and got['item'].tolist() == [
        'None',
        'NA',
        'null',
        'nan',
    ]
    assert read_ratings(io.StringIO('user,item,rating\n7,1,5\n8,2,4\n')).user.tolist() == [7, 8]
    many = 'user,item,rating\n' + '1,2,3\n'*200_000 + '007,2,4\n'  # far behind the first lines
    with pytest.warns(UserWarning, match='repeat'):
        assert set(read_ratings(io.StringIO(many)).user) == {'1', '007'}
    assert read_ratings(io.StringIO('user , item, rating\n  Ada , Nine Doors (2015) , 4\n')).iloc[
        0
    ].tolist() == ['Ada', 'Nine Doors (2015)', 4]
    with pytest.warns(
        UserWarning, match="2 names of users differ only by case or blanks, such as 'Ada' and 'ada'"
    ):
        read_ratings([('Ada', 1, 5), ('ada', 2, 4)])
    assert set(
        read_ratings(pd.DataFrame(dict(user=[9, 32, 'guest'], item=[1, 2, 3], rating=[1, 2, 3]))).user
    ) == {'9', '32', 'guest'}


def test_values():
    with pytest.warns(
        UserWarning, match=r'1 of \d+ ratings are far from the others, which go from 1 to 5: 55 in row 3'
    ):
        read_ratings(
            [
                (u, i, r if k != 3 else 55)
                for k, (u, i, r) in enumerate(
                    RATED * 4 if False else [(u, i, (u + i) % 5 + 1) for u in range(20) for i in range(9)]
                )
            ]
        )
    kept = read_ratings(io.StringIO(PLAIN.replace(',5\n', ',99\n')), missing=())
    assert kept.rating.max() == 99
    line = describe_ratings(read_ratings(io.StringIO(PLAIN.replace(',5\n', ',99\n')), missing=99))
    assert 'ratings by 10 users of 6 items, from 1 to 4' in line and 'not rated' in line and '\n' not in line


# Anything at all

odd = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
    st.booleans(),
    st.tuples(st.integers()),
    st.binary(max_size=3),
    st.dates(),
)


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(odd, odd, odd), max_size=12),
    st.lists(
        st.one_of(st.text(max_size=6), st.sampled_from(['user', 'item', 'rating', 'title']), st.integers()),
        min_size=3,
        max_size=3,
    ),
)
@pytest.mark.filterwarnings('ignore')
def test_any_frame_gives_ratings_or_one_error(rows, names):
    frame = pd.DataFrame(rows, columns=names)
    check(frame)


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(
        st.binary(max_size=200), st.text(alphabet='ab019.,;:|\t\n" -{}[]', max_size=200).map(str.encode)
    )
)
@pytest.mark.filterwarnings('ignore')
def test_any_file_gives_ratings_or_one_error(data):
    check(io.BytesIO(data))


def check(source):
    for read in (read_ratings, read_interactions):
        if hasattr(source, 'seek'): source.seek(0)
        try: got = read(source)
        except CollabError as e: assert str(e) and '\n' not in str(e)
        else:
            assert (
                list(got)[:2] == ['user', 'item'] and len(got) and not got.duplicated(['user', 'item']).any()
            )
            if read is read_ratings: assert np.isfinite(got.rating).all() and got.rating.dtype == float


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'frame',
    [
        pd.DataFrame(np.zeros((3, 3)), columns=pd.MultiIndex.from_tuples([('a', 1), ('a', 2), ('b', 1)])),
        pd.DataFrame([[1, 2, 3]], columns=['user', 'user', 'rating']),
        pd.DataFrame(dict(user=[1], item=[2**80], rating=[10**400])),
        pd.DataFrame(dict(user=[np.array(1)], item=[np.array([1, 2])], rating=[{}])),
        np.array(5),
        'nowhere',
        None,
        7,
    ],
)
def test_odd_objects(frame):
    with pytest.raises((CollabError, FileNotFoundError)): read_ratings(frame)


@pytest.mark.skipif(
    'COLLAB_COURSE_CASES' not in os.environ, reason='COLLAB_COURSE_CASES names no folder of files'
)
@pytest.mark.filterwarnings('ignore')
def test_a_folder_of_cases():
    for path in sorted(Path(os.environ['COLLAB_COURSE_CASES']).glob('[0-9]*.*')):
        if path.suffix == '.py': continue
        try:
            got = read_ratings(path)
        except DataError as e:
            assert any(word in str(e) for word in ('melt', 'read_interactions', 'missing=')), (path.name, e)
        else:
            assert (
                got.rating.between(0, 1e4).all()
                and not looks_like_time(got.user)
                and not looks_like_time(got['item'])
            ), path.name
