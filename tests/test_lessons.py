"""What every lesson promises its reader: links, minutes, exercises that answer back, questions with hidden
answers."""

import json
import re
from pathlib import Path

import pytest

from collab_course.exercises import answers, checker

root = Path(__file__).resolve().parent.parent
lessons = sorted((root/'nbs').glob('[0-9]*.ipynb'))
# written anew for the reader; the others follow
ready = [p for p in lessons if 'Open in Kaggle' in p.read_text(encoding='utf-8')]


def cells(path, kind):
    book = json.loads(path.read_text(encoding='utf-8'))
    return [''.join(c['source']) for c in book['cells'] if c['cell_type'] == kind]


def minutes(path) -> float:
    "At 200 words and 15 lines of code a minute"
    words = sum(len(text.split()) for text in cells(path, 'markdown'))
    lines = [line for code in cells(path, 'code') for line in code.splitlines()]
    return words/200 + sum(bool(line.strip()) and not line.startswith('#|') for line in lines)/15


@pytest.mark.parametrize('path', ready, ids=lambda p: p.stem)
def test_header(path):
    header = cells(path, 'markdown')[0]
    place = f'collab-course/collab_course/blob/main/nbs/{path.name}'
    assert f'https://colab.research.google.com/github/{place}' in header
    assert f'https://kaggle.com/kernels/welcome?src=https://github.com/{place}' in header
    assert re.search(r'^> .+', header, re.M) and re.search(r'^Before: \[.+\]\(.+\)', header, re.M)
    said = int(re.search(r'About (\d+) minutes', header)[1])
    assert abs(said - minutes(path)) <= 5, (said, minutes(path))
    following = re.search(r'Next: \[.+\]\((.+?)\)', header)
    if path != lessons[-1]: assert following[1] == lessons[lessons.index(path) + 1].name


@pytest.mark.parametrize('path', ready, ids=lambda p: p.stem)
def test_reading_time(path):
    if path.stem not in ('15_benchmarks', '17_further_research'): assert minutes(path) <= 40


@pytest.mark.parametrize('path', ready, ids=lambda p: p.stem)
def test_exercises_answer_back(path):
    code = '\n'.join(cells(path, 'code'))
    assert f"check = checker('{path.stem}')" in code
    asked = set(map(int, re.findall(r'^check\((\d+), answer\)', code, re.M)))
    assert asked == set(answers[path.stem]) and len(asked) >= 3
    solved = '\n'.join(cells(root/'nbs'/'solutions'/path.name, 'code'))
    for number in asked:
        assert f'check({number}, ' in solved, f'exercise {number} has no checked solution'
        said = checker(path.stem)(number, 'nothing like it')
        assert not said and exercise_hint(path.stem, number) in said


def exercise_hint(lesson, number) -> str: return answers[lesson][number].hint


@pytest.mark.parametrize('path', ready, ids=lambda p: p.stem)
def test_one_exercise_is_on_your_own_data(path):
    text = '\n'.join(cells(path, 'markdown')).lower()
    assert 'your own' in text[text.index('## exercises'):text.index('## questions')]


@pytest.mark.parametrize('path', ready, ids=lambda p: p.stem)
def test_answers_to_questions_are_folded(path):
    [text] = [t for t in cells(path, 'markdown') if t.startswith('## Questions')]
    questions = re.findall(r'^\d+\. .+', text, re.M)
    assert len(questions) >= 4 and text.count('<details>') == text.count('</details>') == len(questions)


def test_solutions_open():
    for path in (root/'nbs'/'solutions').glob('*.ipynb'):
        assert (root/'nbs'/path.name).exists()
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            for out in cell.get('outputs', []): assert out['output_type'] != 'error'
            assert cell.get('execution_count') is None


def test_questionnaire_of_the_book_is_answered_once():
    "Words that only the answer to that question needs, and the lesson where it belongs"
    asked = {
        'What problem does collaborative filtering solve': '01_ratings',
        'crosstab of ratings look': '01_ratings',
        'recommend badly': '01_ratings',
        'merge</code> do': '01_ratings',
        'What is a latent factor': '02_dot_product',
        'What is a dot product': '02_dot_product',
        'what is an embedding matrix': '02_dot_product',
        'why do we need embeddings': '02_dot_product',
        'hold before training': '02_dot_product',
        'x[:, 0]</code> return': '02_dot_product',
        'good loss for ratings': '02_dot_product',
        'used cross-entropy': '02_dot_product',
        'bias good for in a dot product': '02_dot_product',
        'another name for weight decay': '02_dot_product',
        'gradient of that penalty': '02_dot_product',
        'smaller weights generalise': '02_dot_product',
        'print the layers': '02_dot_product',
        'What does `argsort` do': '04_interpretation',
        'the same as sorting them by their mean ratings': '04_interpretation',
        'have different numbers of factors': '06_neural_net',
        'nn.Sequential': '06_neural_net',
        'metadata of users and items': '08_labels',
        'What is the bootstrapping problem': '17_further_research',
        'for new users, and for new films': '17_further_research',
        'How can feedback loops': '17_further_research',
    }
    texts = {p.stem: [t for t in cells(p, 'markdown') if t.startswith('## Questions')] for p in lessons}
    for words, lesson in asked.items():
        found = [name for name, parts in texts.items() if any(words in part for part in parts)]
        assert found == [lesson], (words, found)
