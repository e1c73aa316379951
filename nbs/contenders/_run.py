"""Runs one contender and measures it: `python _run.py < job.json`.

This program knows nothing of the package, because it has to run where the package is not installed.

A contender is a file with three functions. `load` makes whatever the library takes; later functions
get that as `data`. `fit` trains and returns the `model`. `predict` returns a rating for each row of
`valid`; or, to rank, a table of scores, `users_list` by `items_list`. Each function is given what
its parameters name: the tables `train`, `valid`, `users` and `items` and the arrays `train_times`
and `valid_times` as far as they are there, the `seed`, and the contender's settings; a `**`
parameter gets the settings that no function names. A dict `report` in the file is passed on.
"""
import importlib.util
import inspect
import json
import os
import platform
import sys
import time
import warnings
from importlib import metadata

PARTS = 'load', 'fit', 'predict'
ARRAYS = 'users_list', 'items_list', 'train_times', 'valid_times'      # what is given beside tables


def peak_mib():
    "This program's own peak memory: Linux counts the program that started it into ru_maxrss"
    try:
        with open('/proc/self/status') as f:
            return next(int(line.split()[1]) for line in f if line.startswith('VmHWM'))/2**10
    except (OSError, StopIteration):
        import resource
        unit = 2**20 if sys.platform == 'darwin' else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/unit


def threads():
    "How many threads this process has now, or None where the system does not say"
    try:
        with open('/proc/self/status') as f:
            return next(int(line.split()[1]) for line in f if line.startswith('Threads'))
    except (OSError, StopIteration):
        return None


def versions(packages):
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def read_inputs(path):
    "The tables and lists that `write_inputs` wrote, by name"
    import numpy as np
    import pandas as pd
    with np.load(path, allow_pickle=False) as f:
        arrays = {name: f[name] for name in f.files}
    given = {name: arrays.pop(name) for name in ARRAYS if name in arrays}
    columns = {name: {} for name in ('train', 'valid', 'users', 'items')}
    for name, values in arrays.items():
        table, _, column = name.partition('_')
        columns[table][column] = values
    return given | {name: pd.DataFrame(table) for name, table in columns.items() if table}


def load_file(path):
    spec = importlib.util.spec_from_file_location('contender', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Script:
    "A contender's three functions and its settings"
    def __init__(self, module, settings):
        self.functions = {part: getattr(module, part) for part in PARTS}
        self.parameters = {part: inspect.signature(f).parameters for part, f in self.functions.items()}
        named = {name for parameters in self.parameters.values() for name in parameters}
        self.settings = settings
        self.rest = {name: value for name, value in settings.items() if name not in named}
        if self.rest and not any(self._takes_rest(part) for part in PARTS):
            raise TypeError(f"no function takes the settings {', '.join(self.rest)}")

    def _takes_rest(self, part):
        return any(p.kind == p.VAR_KEYWORD for p in self.parameters[part].values())

    def call(self, part, given):
        given = self.settings | given
        arguments = {name: given[name] for name in self.parameters[part] if name in given}
        if self._takes_rest(part):
            arguments |= self.rest
        return self.functions[part](**arguments)

    def run(self, given):
        "Predictions, and the seconds of each part"
        given, seconds = dict(given), {}
        for part, name in zip(PARTS, ('data', 'model', 'predictions')):
            start, worked = time.perf_counter(), time.process_time()
            given[name] = self.call(part, given)
            seconds[f'{part}_s'] = time.perf_counter() - start
            if part == 'fit':
                seconds['cpu_s'] = time.process_time() - worked         # of all threads together
                seconds['threads'] = threads()
        return given['predictions'], seconds


def checked(predictions, given):
    "The predictions as an array, of the right shape and finite"
    import numpy as np
    if predictions is None:
        raise ValueError('predict does not return anything')
    if hasattr(predictions, 'cpu'):
        predictions = predictions.cpu()         # from wherever the model is
    predictions = np.asarray(predictions, dtype=float)
    lists = [given[name] for name in ('users_list', 'items_list') if name in given]
    shape = tuple(map(len, lists or [given['valid']]))
    if predictions.shape != shape:
        raise ValueError(f'predict must return an array of shape {shape}, not {predictions.shape}')
    bad = int((~np.isfinite(predictions)).sum())
    if bad:
        raise ValueError(f'{bad} of {predictions.size} predictions are not finite')
    return predictions


def run_warm(contender, given):
    "A first try on few rows, after which compiling and loading on demand are done; its error's name"
    few = {'train': given['train'][:2000].copy(), 'valid': given['valid'][:200].copy()}
    times = {'train_times': 2000, 'valid_times': 200}
    few |= {name: given[name][:n] for name, n in times.items() if name in given}
    try:
        contender.run(given | few)
    except Exception as e:          # too few rows for some
        return {'cold': type(e).__name__}
    return {}


def measure(job):
    "Everything about one run, as a dict; the predictions go to the file `job['output']`"
    import numpy as np
    given = read_inputs(job['inputs']) | {'seed': job['seed']}
    module = load_file(job['file'])
    contender = Script(module, job['settings'])
    measured = {'setup_mib': peak_mib()}
    if job['warm']:
        measured |= run_warm(contender, given)
    predictions, seconds = contender.run(given)
    measured |= seconds | {'peak_mib': peak_mib()}
    np.save(job['output'], checked(predictions, given))
    if getattr(module, 'report', None):
        measured['report'] = module.report
    return measured


def main():
    job = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)                   # whatever a library prints goes to standard error
    try:
        with warnings.catch_warnings():
            measured = measure(job)
    except BaseException as e:
        measured = {'error': ' '.join(f'{type(e).__name__}: {e}'.split())[:300]}
    measured |= {'versions': versions(job['packages']), 'python': platform.python_version()}
    print(json.dumps(measured, allow_nan=False), file=answer, flush=True)


if __name__ == '__main__':
    main()
