"""The runtime's own part of a compiled kernel: unpacks a launch and shares its programs among threads.

It stands below the kernel's text in the same file, needs only C headers (C++ ones and immintrin.h cost 0.1 to 0.2 s of
every compilation) and no OpenMP flags: the address of the OpenMP runtime's entry comes with the launch, or zero.

A launch is one packed structure of 8-byte fields: those of HEADER, then a slot for each pointer, then one for each
scalar, its value at the slot's beginning.
"""

from __future__ import annotations

import struct

from attnlang.artifact import Argument, KernelSource

OUT_OF_MEMORY = -1
HEADER = struct.Struct("=QQ6q")
"""Addresses of `GOMP_parallel` and of the tasks; position, count, programs, chunk, threads, nanoseconds."""

_SLOTS = {
    "i1": "?7x",
    "i8": "b7x",
    "u8": "B7x",
    "i32": "i4x",
    "i64": "q",
    "fp32": "f4x",
    "fp64": "d",
}


def pointers(source: KernelSource) -> tuple[Argument, ...]:
    """The arguments that are tensors, in their order."""
    return tuple(argument for argument in source.arguments if argument.kind == "pointer")


def scalars(source: KernelSource) -> tuple[Argument, ...]:
    """The arguments that are numbers, in their order."""
    return tuple(argument for argument in source.arguments if argument.kind == "scalar")


def slots_of(source: KernelSource) -> struct.Struct:
    """The structure of a launch behind its header: addresses of the tensors, values of the scalars.

    ValueError: a scalar of a half type, which no kernel takes.
    """
    half = [argument.name for argument in scalars(source) if argument.dtype not in _SLOTS]
    if half:
        raise ValueError(f"{source.name} takes {', '.join(half)} as a number of 16 bits; pass it as fp32")
    return struct.Struct(
        "=" + "Q" * len(pointers(source)) + "".join(_SLOTS[a.dtype] for a in scalars(source))
    )


def entry_name(source: KernelSource) -> str:
    """The one function that the library exports."""
    return f"{source.name}_run"


def whole_text(source: KernelSource) -> str:
    """The file to compile: the kernel, then the function that runs a launch of it."""
    places = {argument.name: place for place, argument in enumerate((*pointers(source), *scalars(source)))}
    rows = "".join(
        f"        {_SLOT[argument.kind].format(places[argument.name])},  // {argument.name}\n"
        for argument in source.arguments
    )
    text = _WRAPPER.replace("NAME", source.name).replace("        ARGUMENTS\n", rows)
    return source.text.rstrip("\n") + "\n" + text


_SLOT = {"pointer": "(const void*)launch->slots[{}]", "scalar": "launch->slots + {}"}

_WRAPPER = r"""
// ---------------------------------------------------------------- the runtime's part, the same for every kernel

#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#if __has_include(<pthread.h>)
#include <pthread.h>
#define ATTNLANG_PTHREADS 1
#endif

#define ATTNLANG_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct attnlang_launch {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned);  // GOMP_parallel; null: threads of our own
    const int64_t* tasks;  // program numbers in the order in which they are taken; null: 0, 1, 2, ...
    int64_t position;      // so many tasks were done by earlier calls for this launch
    int64_t count;         // tasks of this launch
    int64_t programs;      // programs of the grid
    int64_t chunk;         // tasks taken at a time
    int64_t threads;
    int64_t nanoseconds;   // after so long no further task is begun
    int64_t slots[];
};

enum { attnlang_working, attnlang_late, attnlang_out_of_memory };

struct attnlang_team {
    const attnlang_launch* launch;
    const void* const* arguments;
    int64_t deadline;
    int state;
    alignas(64) int64_t next;
};

int64_t attnlang_now() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return int64_t(now.tv_sec) * 1000000000 + now.tv_nsec;
}

// One thread's share: tasks are taken until there are none, or until time is up. What was taken is finished.
void attnlang_work(void* given) {
    attnlang_team& team = *static_cast<attnlang_team*>(given);
    const attnlang_launch& launch = *team.launch;
    const int64_t bytes = NAME_scratch();
    void* const block = malloc(size_t(bytes) + 64);
    if (!block) {
        __atomic_store_n(&team.state, int(attnlang_out_of_memory), __ATOMIC_RELAXED);
        return;
    }
    void* const scratch = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(block) + 63) & ~uintptr_t(63));
    while (__atomic_load_n(&team.state, __ATOMIC_RELAXED) == attnlang_working) {
        const int64_t first = __atomic_fetch_add(&team.next, launch.chunk, __ATOMIC_RELAXED);
        if (first >= launch.count) break;
        const int64_t last = first + launch.chunk < launch.count ? first + launch.chunk : launch.count;
        if (!launch.tasks) NAME(team.arguments, first, last, scratch);
        else for (int64_t task = first; task < last; ++task)
            NAME(team.arguments, launch.tasks[task], launch.tasks[task] + 1, scratch);
        if (attnlang_now() >= team.deadline) {
            int working = attnlang_working;
            __atomic_compare_exchange_n(&team.state, &working, int(attnlang_late), false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED);
        }
    }
    free(block);
}

#if ATTNLANG_PTHREADS
void* attnlang_thread(void* given) {
    attnlang_work(given);
    return nullptr;
}

void attnlang_own_threads(void* team, int64_t threads) {
    const int64_t others = threads - 1;
    pthread_t* const made = static_cast<pthread_t*>(malloc(size_t(others) * sizeof(pthread_t)));
    int64_t running = 0;
    while (made && running < others && !pthread_create(made + running, nullptr, attnlang_thread, team)) ++running;
    attnlang_work(team);
    while (running > 0) pthread_join(made[--running], nullptr);
    free(made);
}
#else
void attnlang_own_threads(void* team, int64_t) { attnlang_work(team); }
#endif

}  // namespace

// Runs tasks of a launch; how many of them are done now, or -1: no memory, -2: a task is no program of the grid.
ATTNLANG_EXPORT int64_t NAME_run(const attnlang_launch* launch) {
    const void* const arguments[] = {
        ARGUMENTS
        nullptr,
    };
    if (launch->tasks && launch->position == 0)
        for (int64_t task = 0; task < launch->count; ++task)
            if (launch->tasks[task] < 0 || launch->tasks[task] >= launch->programs) return -2;
    attnlang_team team = {launch, arguments, attnlang_now() + launch->nanoseconds, attnlang_working, launch->position};
    if (launch->threads < 2) attnlang_work(&team);
    else if (launch->parallel) launch->parallel(attnlang_work, &team, unsigned(launch->threads), 0);
    else attnlang_own_threads(&team, launch->threads);
    if (team.state == attnlang_out_of_memory) return -1;
    return team.next < launch->count ? team.next : launch->count;
}
"""
