"""Runs peer_worker.py for many shapes and settings: compilations side by side, measurements one at a
time on an otherwise idle device. A worker that takes too long is ended and says so in its result."""

import concurrent.futures
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
import time

import shapes

READY_SECONDS = 100  # import, compile, first run
MEASURE_SECONDS = 30
SECONDS_TO_MEASURE = 1.2  # what most take
LONGEST_REASON = 90  # characters, in a table
SCRIPT = pathlib.Path(__file__).with_name("peer_worker.py")
BACKENDS = ("cudnn", "flash2")
FA4_KERNELS = {True: ("dense", "deterministic"), False: ("blocks",)}  # by Shape.dense


def flex_kernels(shape):
    """Blocks of 128 need no mask inside."""
    if shape.dense and not shape.masked:
        return ["plain"]
    return ["default", "tiles", *["masked"] * (shape.block < 128)]


def settings_of(shape, peers, autotune):
    """What to try for a shape."""
    settings = []
    if "flex" in peers and shape.faces("flex"):
        settings += [f"flex:{kernel}" for kernel in flex_kernels(shape)]
        if autotune:
            settings += [f"{setting}:autotune" for setting in settings]
    if "sdpa" in peers:
        settings += [f"sdpa:{backend}" for backend in BACKENDS if shape.faces(backend)]
    if "fa4" in peers and shape.faces("fa4"):
        settings += [f"fa4:{kernel}" for kernel in FA4_KERNELS[shape.dense]]
    if "bsa" in peers and shape.faces("bsa"):
        settings.append("bsa:blocks")
    return settings


class Worker:
    def __init__(self, shape, setting, pattern_file, folder):
        self.shape, self.setting = shape, setting
        self.began = time.monotonic()
        self.log = folder / f"{shape.name}.{setting.replace(':', '-')}.log"
        environment = dict(
            os.environ,
            TORCHINDUCTOR_CACHE_DIR=str(folder / "inductor"),
            TRITON_CACHE_DIR=str(folder / "triton"),
            TORCHINDUCTOR_COMPILE_THREADS="1",  # there is a process for each kernel already
        )
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), shape.name, str(pattern_file), setting],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                self.lines.put(json.loads(line))
        self.lines.put(None)

    def wait_for_line(self, seconds, what):
        """(result, None), or (None, why there is none)."""
        try:
            line = self.lines.get(timeout=max(seconds, 0))
        except queue.Empty:
            return None, f"{what} took too long"
        return (line, None) if line else (None, self._last_words())

    def _last_words(self):
        self.process.wait()
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return (lines[-1] if lines else f"ended with status {self.process.returncode}")[:LONGEST_REASON]

    def failed(self, why):
        failure = {name: {"failure": why} for name in shapes.PASSES}
        return {"shape": self.shape.name, "setting": self.setting, **failure}

    def measure(self):
        try:
            self.process.stdin.write("measure\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return self.failed(self._last_words())
        result, why = self.wait_for_line(MEASURE_SECONDS, "measuring")
        return result or self.failed(why)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        try:
            self.process.stdin.close()
        except BrokenPipeError:  # it ended before it was told to measure
            pass


def start(job, folder, deadline, say, begun):
    """(worker, None) once it is ready, or (None, its result): it compiles in this call. `begun` gains
    the worker at once."""
    shape, setting, _ = job
    if time.monotonic() >= deadline:
        failure = {name: {"failure": "not run: time was up"} for name in shapes.PASSES}
        return None, {"shape": shape.name, "setting": setting, **failure}
    worker = Worker(*job, folder)
    begun.append(worker)
    left = min(worker.began + READY_SECONDS, deadline) - time.monotonic()
    line, why = worker.wait_for_line(left, "compiling")
    if line:
        return worker, None
    worker.end()
    say(f"{shape.name} {setting}: {why}")
    return None, worker.failed(why)


def run_batch(jobs, width, folder, deadline, say):
    """Compiles `jobs` (shape, setting, pattern file), `width` at a time, then measures one after
    another. Measuring has SECONDS_TO_MEASURE of each before the deadline."""
    compiled = deadline - SECONDS_TO_MEASURE * len(jobs)
    begun = []
    try:
        with concurrent.futures.ThreadPoolExecutor(width) as pool:
            started = list(pool.map(lambda job: start(job, folder, compiled, say, begun), jobs))
        results = [result for _, result in started if result]
        for worker in (worker for worker, _ in started if worker):
            results.append(worker.measure())
            worker.end()  # frees its memory
            say(describe(results[-1]))
    finally:
        for worker in begun:
            worker.end()
    return results


def describe(result):
    def text(one):
        return f"{one['ms']:.4f} ms" if "ms" in one else one["failure"]

    passes = ", ".join(f"{name} {text(result[name])}" for name in shapes.PASSES)
    return f"{result['shape']} {result['setting']}: {passes}"


def run_all(jobs, width, folder, deadline, say, waiting):
    """Yields the results of batches of `waiting`, which is how many processes keep their tensors on
    the device until they measure; what the deadline cuts off is named too."""
    for begin in range(0, len(jobs), waiting):
        batch = jobs[begin : begin + waiting]
        say(f"compiling {len(batch)} peers")
        yield run_batch(batch, width, folder, deadline, say)
