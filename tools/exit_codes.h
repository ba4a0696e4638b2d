// How a run of `spion` ended, for scripts. `spion --help` and docs/command.md show this table, and
// a test holds them to it.
#pragma once

namespace spion {

enum ExitCode : int {
    kDone = 0,
    kNotPassed = 1,
    kRefused = 2,
    kFault = 3,
    kDiverged = 4,
    kHungUp = 129,
    kInterrupted = 130,
    kTerminated = 143,
};

struct ExitCodeMeaning {
    ExitCode code;
    const char* meaning;
};

// In order.
constexpr ExitCodeMeaning kExitCodes[] = {
    {kDone, "done"},
    {kNotPassed,
     "`verify` above its tolerance, `cache verify` with a damaged entry, `sweep` with a failed "
     "run"},
    {kRefused, "a request, a file or a machine that cannot do it: one sentence on standard error"},
    {kFault, "a fault of spion: please report it"},
    {kDiverged, "`train` diverged: its values were no longer finite"},
    {kHungUp, "ended by SIGHUP, as when its terminal closes; `train` has kept its results"},
    {kInterrupted, "ended by SIGINT (Ctrl-C); `train` has kept its results"},
    {kTerminated, "ended by SIGTERM; `train` has kept its results"},
};

}  // namespace spion
