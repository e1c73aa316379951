"""What `.ci/cuda.sh` runs: trains on a device and on the CPU, compares, and writes one JSON file.

This program itself needs nothing but Python. The trainings run in worker processes, part after part. A worker
writes each result as a line of a file as soon as it has it. The lines are gathered here, and the JSON file is
written anew each time. So a part that fails, hangs or dies loses no other part's results.
"""
import argparse
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import date
from pathlib import Path

root = Path(__file__).resolve().parent.parent
here = Path(__file__).resolve()

# part → seconds until it is given up
LIMITS = dict(made=120, machine=60, saving=40, speed=60, scale=120, loading=40, tests=150, fast=60, sixth=60,
              seventh=60, ranking=60, mixed=40, original=170, two=60)
ALONE = 'machine', 'saving', 'speed', 'scale'             # timed: nothing else runs meanwhile
ALONE_ON_CPU = 'loading', 'speed', 'scale'
EACH_SEED = 'fast', 'sixth', 'seventh', 'ranking', 'mixed', 'original'
EACH_SEED_ON_CPU = tuple(p for p in EACH_SEED if p != 'mixed')

# the bars; they are fixed
MSE_BAND = .003           # mean difference to the CPU's MSE, on the same splits from the same starts
NDCG_BAND = .005          # the same of nDCG@10; dropout draws other numbers on another device
EPOCH_SECONDS = 5.        # of an epoch of 25 million ratings
OF_THE_NOISE = 1.05       # MSE over that of the noise, 25 million ratings
SAME_PREDICTIONS = 1e-4   # saved on the device, loaded on the CPU
HALF_PRECISION = .003     # MSE in mixed precision minus MSE in float32
TWO_CARDS = .003          # MSE of two processes minus that of one


# Workers

class Worker:
    "A process that does one part after the other; it is started again without a part that fails"
    def __init__(self, run, on, seed, parts, alone=False):
        self.run, self.on, self.seed, self.alone = run, on, seed, alone
        self.left = [p for p in parts if p not in run.skipped]
        self.file = run.folder/f'{on}-{seed}-{len(run.workers)}.jsonl'
        self.file.touch()
        self.n_read, self.process = 0, None
        run.workers.append(self)
        if self.left: self._start()

    def _start(self):
        "Start the process with the parts that are left"
        device = self.run.device if self.on == 'device' else 'cpu'
        job = dict(parts=self.left, device=device, on=self.on, seed=self.seed, small=self.run.small,
                   file=str(self.file), folder=str(self.run.folder))
        self.doing, self.since = self.left[0], time.monotonic()
        with open(self.file.with_suffix('.log'), 'w') as log:
            self.process = started([sys.executable, str(here), 'work', json.dumps(job)],
                                   variables(device, self.alone), stdout=log, stderr=subprocess.STDOUT)

    def _read(self):
        "Pass on the lines that are new"
        lines = self.file.read_bytes().split(b'\n')[:-1]        # what follows the last newline is not whole
        for line in lines[self.n_read:]:
            row = json.loads(line)
            if 'begins' in row: self.doing, self.since = row['begins'], time.monotonic()
            elif 'ended' in row: self.left.remove(row['ended'])
            else: self.run.add(row)
        self.n_read = len(lines)

    def is_done(self):
        "Look after the process; true when no part is left"
        if not self.left: return self._end()
        code = self.process.poll()
        self._read()
        late = time.monotonic() - self.since > self.run.limits[self.doing]
        if not self.left: return self._end()
        if code is None and not late: return False
        self.give_up(f'not done after {self.run.limits[self.doing]} s' if late else self._end_of_log(code))
        if self.left: self._start()
        return not self.left

    def _end_of_log(self, code):
        "How the process ended, and the last thing that it said"
        said = self.file.with_suffix('.log').read_text(errors='replace').split('\n')
        last = next((line.strip() for line in reversed(said) if line.strip()), '')
        return f'ended with {code}: {last[:500]}'

    def give_up(self, why):
        "End the process, and say why the part that it was doing has failed"
        end(self.process)
        self._read()
        self.run.add(dict(part=self.doing, on=self.on, seed=self.seed, error=why))
        self.left.remove(self.doing)

    def give_up_all(self, why):
        while self.left:
            self.doing = self.doing if self.doing in self.left else self.left[0]
            self.give_up(why)

    def _end(self):
        if self.process: self.process.wait()
        return True


def variables(device, alone=True):
    "The environment of a worker: the CPU's see no card, and workers beside one another have a thread each"
    path = os.pathsep.join(filter(None, [str(root), os.environ.get('PYTHONPATH')]))
    res = {**os.environ, 'PYTHONPATH': path, 'MPLBACKEND': 'Agg', 'PYTHONWARNINGS': 'ignore'}
    if device == 'cpu': res['CUDA_VISIBLE_DEVICES'] = ''
    if not alone: res['OMP_NUM_THREADS'] = '1'
    return res


def started(command, env, **kwargs):
    quiet = dict(stdin=subprocess.DEVNULL, cwd=root, start_new_session=True)
    return subprocess.Popen(command, env=env, **quiet, **kwargs)


def end(process):
    "End a process together with what it has started"
    try: os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError: pass
    process.wait()


# The whole run

class Run:
    "Everything that is measured, and the file that it is written to"
    def __init__(self, file, device, small, seconds, limits, skipped, folder):
        self.file, self.device, self.small = Path(file), device, small
        self.limits, self.skipped, self.folder = LIMITS | limits, skipped, Path(folder)
        self.began = time.monotonic()
        self.deadline = self.began + seconds
        self.rows, self.workers = [], []

    def add(self, row):
        self.rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        self.write()

    def write(self, done=False):
        "Write the file whole, under another name first"
        machine = next((r for r in self.rows if r['part'] == 'machine' and 'error' not in r), {})
        seconds = round(time.monotonic() - self.began, 1)
        res = dict(date=str(date.today()), device=self.device, small=self.small, done=done, seconds=seconds,
                   machine=without(machine, 'part', 'on', 'seed'), bars=bars(self.rows, self.device),
                   runs=[r for r in self.rows if r['part'] != 'machine' or 'error' in r])
        new = self.file.with_name(self.file.name + '.new')
        new.write_text(json.dumps(res, indent=1) + '\n', encoding='utf-8')
        new.replace(self.file)
        return res

    def together(self, *workers):
        "Look after workers that run beside one another, until all are done or the time is up"
        running = list(workers)
        while running:
            if time.monotonic() > self.deadline:
                for w in running: w.give_up_all('the time was up')
            running = [w for w in running if not w.is_done()]
            time.sleep(.1)

    def command(self, part, command, env, what):
        "Run a command within its limit; `what` makes a row of its exit status and its output"
        if part in self.skipped: return
        limit = min(self.limits[part], self.deadline - time.monotonic())
        start, row = time.monotonic(), dict(part=part, on='device')
        if limit <= 0: return self.add(row | dict(error='the time was up'))
        process = started(command, env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try: said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            end(process)
            return self.add(row | dict(error=f'not done after {limit:.0f} s'))
        self.add(row | dict(seconds=round(time.monotonic() - start, 1)) | what(process.returncode, said))

    def n_cards(self):
        machines = of(self.rows, part='machine')
        return max((len(m.get('cards', [])) for m in machines), default=0)


def without(row, *names): return {k: v for k, v in row.items() if k not in names}


def run_all(run):
    "The tests, while ratings are made; what is timed; all seeds on the device and the CPU; two processes"
    run.write()
    maker = [] if run.small else [Worker(run, 'cpu', 0, ['made'])]
    run.command('tests', tests(run.small), variables(run.device), summary_of_tests)
    run.together(*maker)
    if run.small:
        run.together(Worker(run, 'device', 0, ALONE + EACH_SEED),
                     Worker(run, 'cpu', 0, EACH_SEED_ON_CPU + ALONE_ON_CPU))
    else:
        run.together(Worker(run, 'device', 0, ALONE, alone=True))
        run.together(Worker(run, 'cpu', 0, ALONE_ON_CPU, alone=True))
        run.together(*[Worker(run, 'device', seed, EACH_SEED) for seed in range(5)],
                     *[Worker(run, 'cpu', seed, EACH_SEED_ON_CPU) for seed in range(5)])
    if run.n_cards() > 1 or run.device == 'cpu':
        env = variables(run.device, alone=False)
        if run.device == 'cpu': env['ACCELERATE_USE_CPU'] = 'true'
        run.command('two', two_processes(run), env, last_line)
    return run.write(done=True)


def tests(small):
    "The command that runs the tests marked `cuda`"
    where = [str(root/'tests'/'test_models.py')] if small else [str(root/'tests')]
    workers = ['-n', '4'] if not small and installed('pytest-xdist') else []
    options = ['-q', '-m', 'cuda', '-rfE', '-p', 'no:cacheprovider', '--continue-on-collection-errors']
    return [sys.executable, '-m', 'pytest', *options, *workers, *where]


def installed(name):
    try: return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError: return None


def summary_of_tests(code, said):
    "How many passed, failed and were skipped, and which failed"
    counts = {word: int(n) for n, word in re.findall(r'(\d+) (passed|failed|skipped|error)', said)}
    row = dict.fromkeys(('passed', 'failed', 'skipped', 'error'), 0) | counts
    row['errors'] = row.pop('error')
    failures = [line[:300] for line in said.splitlines() if line.startswith(('FAILED ', 'ERROR '))]
    row['failures'] = failures[:40]
    ran = code in (0, 1, 5)                                       # 5: no test was selected
    return row if ran else row | dict(error=f'pytest ended with {code}: {said[-600:]}')


def two_processes(run):
    "The command that trains in two processes"
    job = dict(parts=['two'], device=run.device, on='device', seed=0, small=run.small, file='', folder='')
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
    return [*launcher, str(here), 'work', json.dumps(job)]


def last_line(code, said):
    rows = [line for line in said.splitlines() if line.startswith('{')]
    return json.loads(rows[-1]) if rows and not code else dict(error=f'ended with {code}: {said[-600:]}')


# The bars

def bars(rows, device):
    "Name → whether it passed, the value and its limit; a bar of what was not measured has not passed"
    fine = [r for r in rows if 'error' not in r]
    growth = [r for r in fine if r['part'] == 'scale' and r['on'] == 'device']
    res = {
        'tests': bar(tests_failed(fine, device), 0),
        "MSE within the CPU's band": bar(worst(apart(fine, ('fast', 'original', 'sixth', 'seventh'), 'mse')),
                                         MSE_BAND),
        "nDCG within the CPU's band": bar(worst(apart(fine, ('ranking',), 'nDCG')), NDCG_BAND),
        'seconds an epoch of 25 million': bar(only(growth, 'epoch_s'), EPOCH_SECONDS),
        'MSE over the noise, 25 million': bar(only(growth, 'of_the_noise'), OF_THE_NOISE),
        'saved on the device, loaded on the CPU': bar(only(of(fine, part='loading'), 'difference'),
                                                      SAME_PREDICTIONS),
        'mixed precision': bar(worst(half_minus_full(fine)), HALF_PRECISION)}
    two = only(of(rows, part='two'), 'mse')
    if of(rows, part='two'):
        one = only([r for r in of(fine, part='fast', seed=0, on='device') if r['model'] == FOURTH], 'mse')
        res['two processes'] = bar(None if None in (one, two) else abs(two - one), TWO_CARDS)
    return res


FOURTH = '4 + weight decay'


def bar(value, limit):
    where, value = value if isinstance(value, tuple) else (None, value)
    res = dict(passed=value is not None and value <= limit, value=value, limit=limit)
    return res | (dict(where=where) if where else {})


def of(rows, **what): return [r for r in rows if all(r.get(k) == v for k, v in what.items())]


def only(rows, name): return next((r[name] for r in rows if name in r), None)


def tests_failed(rows, device):
    row = next(iter(of(rows, part='tests')), None)
    if row is None or device != 'cpu' and not row['passed']: return None
    return row['failed'] + row['errors']


def by_model(rows, value):
    "(part, model) → {seed: value}"
    res = defaultdict(dict)
    for r in rows:
        if value in r: res[r['part'], r['model']][r['seed']] = r[value]
    return res


def mean_difference(a, b):
    "Mean over the seeds that both have; None without one"
    both = a.keys() & b.keys()
    return sum(a[s] - b[s] for s in both)/len(both) if both else None


def apart(rows, parts, value):
    "Part and model → how far the device's mean lies from the CPU's on the same seeds"
    rows = [r for r in rows if r['part'] in parts]
    device, cpu = (by_model(of(rows, on=on), value) for on in ('device', 'cpu'))
    gaps = {key: mean_difference(device[key], cpu[key]) for key in device if key in cpu}
    return {key: abs(gap) for key, gap in gaps.items() if gap is not None}


def half_minus_full(rows):
    "Model → MSE in mixed precision minus MSE in float32 on the same seeds"
    half = by_model(of(rows, part='mixed'), 'mse')
    full = {name: seeds for (part, name), seeds in by_model(of(rows, on='device'), 'mse').items()
            if part in ('fast', 'sixth')}
    gaps = {key: mean_difference(half[key], full[key[1]]) for key in half if key[1] in full}
    return {key: gap for key, gap in gaps.items() if gap is not None}


def worst(gaps):
    "The largest, and whose it is; None where nothing was compared"
    if not gaps: return None
    part, model = max(gaps, key=gaps.get)
    return f'{part}: {model}', gaps[part, model]


# Wheels

# with PyTorch they are there on a machine for data work, and large
NOT_CARRIED = {'torch', 'torchvision', 'numpy', 'pandas', 'scipy', 'matplotlib', 'scikit-learn', 'pillow',
               'fonttools', 'setuptools', 'collab-course', 'spacy', 'triton'}
BUILT = {'fbpca'}                   # pure Python, and there is no wheel of it
CARRIED_TOO = 'nvidia-ml-py', 'pytest-xdist', 'execnet', 'huggingface_hub'
PLATFORMS = ['manylinux2014_x86_64', *(f'manylinux_2_{n}_x86_64' for n in (28, 27, 26, 17, 12, 5))]


def wheels(folder, python, most=64):
    "Collect what the package and its tests import here, in these versions, as wheels for another machine"
    named = imported_packages()
    built = [n for n in named if n.split('==')[0] in BUILT]
    platforms = [o for p in PLATFORMS for o in ('--platform', p)]
    other = ['--only-binary=:all:', '--python-version', python, '--implementation', 'cp', *platforms]
    pip('download', *other, '-d', folder, *(n for n in named if n not in built))
    if built: pip('wheel', '-w', folder, *built)
    files = list(Path(folder).glob('*.whl'))
    size = sum(f.stat().st_size for f in files)/2**20
    print(f'{len(files)} wheels, {size:.1f} MiB')
    if size > most: sys.exit(f'at most {most} MiB can travel')


def pip(command, *arguments):
    subprocess.run([sys.executable, '-m', 'pip', command, '-q', '--no-deps', *arguments], check=True)


IMPORTS = """
import importlib, importlib.metadata, pathlib, sys
sys.path[:0] = ['tests', '.ci']
names = ['accelerate', 'collab_course.cli', 'collab_course.spreadsheet', 'cuda_parts']
for name in names + sorted(p.stem for p in pathlib.Path('tests').glob('test_*.py')):
    importlib.import_module(name)
packages = importlib.metadata.packages_distributions()
print('NAMES', *sorted({p for m in sys.modules for p in packages.get(m.split('.')[0], [])}))
"""


def imported_packages():
    "name==version of what is loaded once the package and the tests are"
    said = subprocess.run([sys.executable, '-c', IMPORTS], cwd=root, env=variables('cpu'), check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    names = next(line.split()[1:] for line in said.splitlines() if line.startswith('NAMES'))
    names = [n for n in names if re.sub('[-_.]+', '-', n).lower() not in NOT_CARRIED]
    return [f'{n}=={version}' if (version := installed(n)) else n for n in [*names, *CARRIED_TOO]]


def missing(folder):
    "The wheels in a folder whose packages are not installed here"
    for file in sorted(Path(folder).glob('*.whl')):
        if not installed(file.name.split('-')[0]): print(file)


# What a worker does

def work(job):
    "Do the parts of a job, each result a line of its file (two processes: the first prints it)"
    import cuda_parts
    for name in job['parts']:
        say(job, dict(begins=name))
        try:
            for row in cuda_parts.PARTS[name](cuda_parts.Setting(**without(job, 'parts', 'file'))):
                say(job, dict(part=name, on=job['on'], seed=job['seed']) | row)
        except Exception as e:
            if not job['file']: raise
            words = ' '.join(f'{type(e).__name__}: {e}'.split())[:600]
            say(job, dict(part=name, on=job['on'], seed=job['seed'], error=words))
        say(job, dict(ended=name))


def say(job, row):
    if not job['file']:
        if 'part' in row: print(json.dumps(row), flush=True)
        return
    with open(job['file'], 'a', encoding='utf-8') as f: f.write(json.dumps(row) + '\n')


def main():
    parser = argparse.ArgumentParser(description='Train on a device and on the CPU, and compare.')
    commands = parser.add_subparsers(dest='command', required=True)
    command = commands.add_parser('wheels', help='collect, here, what the other machine may lack')
    command.add_argument('folder')
    command.add_argument('--python', default='3.12', help="the other machine's Python (default: 3.12)")
    commands.add_parser('missing', help='which of these wheels are not installed here').add_argument('folder')
    command = commands.add_parser('run', help='train and measure')
    command.add_argument('file', help='the JSON file to write')
    command.add_argument('--device', default='cuda', help='cuda or cpu (default: cuda)')
    command.add_argument('--small', action='store_true', help='few made ratings: only to try this out')
    command.add_argument('--seconds', type=float, default=480, help='until all is given up (default: 480)')
    command.add_argument('--limit', action='append', default=[], metavar='PART=SECONDS',
                         help=f"another limit for a part ({', '.join(LIMITS)})")
    command.add_argument('--skip', action='append', default=[], choices=LIMITS, help='leave a part out')
    commands.add_parser('work').add_argument('job')
    args = parser.parse_args()
    if args.command == 'wheels': wheels(args.folder, args.python)
    elif args.command == 'missing': missing(args.folder)
    elif args.command == 'work': work(json.loads(args.job))
    else: measure(args)


def measure(args):
    limits = {part: float(s) for part, s in (o.split('=') for o in args.limit)}
    with tempfile.TemporaryDirectory() as folder:
        run = Run(args.file, args.device, args.small, args.seconds, limits, args.skip, folder)
        try: res = run_all(run)
        finally:
            for worker in run.workers:
                if worker.process: end(worker.process)
    if args.small: print('This was only a trial, with few ratings: the figures mean nothing.')
    for name, b in res['bars'].items():
        value = 'not measured' if b['value'] is None else f"{b['value']:.5g}"
        print(f"{'passed' if b['passed'] else 'FAILED':7} {name}: {value} (at most {b['limit']:g})",
              b.get('where', ''))
    for row in res['runs']:
        if 'error' in row: print('error: ', row['part'], 'on', row['on'], row.get('seed'), row['error'][:200])
    print(f"{res['seconds']:.0f} s, written to {args.file}")


if __name__ == '__main__': main()
