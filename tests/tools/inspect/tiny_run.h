// What the tests of `spion inspect` look at: a training run of seconds.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "tests/support/environment.h"
#include "tests/support/run_command.h"
#include "tests/train/files.h"

namespace spion {

// A run that turns sparse halfway, made once for all tests here.
inline const std::string& tiny_run() {
    static const ScratchFolder folder;
    static const std::string path = [] {
        const Environment cache("SPION_CACHE_DIR", folder.file("cache"));
        const CommandResult result = run_command(
            "train listops --device cpu --preset demo --length 96 --min-length 10 --max-length 90 "
            "--layers 2 --heads 1 --head-dim 16 --d-model 16 --feed-forward 16 --batch 4 --block "
            "16 --train-samples 40 --validation-samples 4 --test-samples 4 --steps 8 --warmup 2 "
            "--eval-every 2 --transition-step 4 --out " +
            folder.file("run"));
        EXPECT_EQ(result.exit_code, 0) << result.err;
        return folder.file("run");
    }();
    return path;
}

}  // namespace spion
