// What launchers tell their processes, read from made-up environments.
#include "runtime/ranks/rank.h"

#include <gtest/gtest.h>

#include <map>

#include "ir/error.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

using Variables = std::map<std::string, std::string, std::less<>>;

Rank rank_in(const Variables& variables) {
    return rank_of([&](std::string_view name) {
        const auto value = variables.find(name);
        return value == variables.end() ? std::nullopt : std::optional(value->second);
    });
}

void expect_rank(const Variables& variables, int index, int count, int local) {
    const Rank rank = rank_in(variables);
    EXPECT_EQ(rank.index, index);
    EXPECT_EQ(rank.count, count);
    EXPECT_EQ(rank.local, local);
    EXPECT_EQ(rank.alone(), count == 1);
    EXPECT_EQ(rank.leads(), index == 0);
}

TEST(Rank, IsReadAsEachLauncherTellsIt) {
    expect_rank({}, 0, 1, 0);
    expect_rank({{"RANK", "5"}, {"WORLD_SIZE", "8"}, {"LOCAL_RANK", "1"}}, 5, 8, 1);
    expect_rank({{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"LOCAL_RANK", "0"}}, 0, 1, 0);
    expect_rank({{"OMPI_COMM_WORLD_RANK", "3"},
                 {"OMPI_COMM_WORLD_SIZE", "4"},
                 {"OMPI_COMM_WORLD_LOCAL_RANK", "3"}},
                3, 4, 3);
    expect_rank({{"PMI_RANK", "2"}, {"PMI_SIZE", "6"}, {"MPI_LOCALRANKID", "0"}}, 2, 6, 0);
    expect_rank({{"SLURM_PROCID", "7"}, {"SLURM_STEP_NUM_TASKS", "16"}, {"SLURM_LOCALID", "3"}}, 7,
                16, 3);
}

TEST(Rank, IsAloneInABatchScriptWithoutSrun) {
    expect_rank({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_LOCALID", "0"}}, 0, 1, 0);
}

TEST(Rank, OfTorchrunWinsOverThatOfTheJobItRunsIn) {
    expect_rank({{"RANK", "1"},
                 {"WORLD_SIZE", "2"},
                 {"LOCAL_RANK", "1"},
                 {"SLURM_PROCID", "0"},
                 {"SLURM_STEP_NUM_TASKS", "1"}},
                1, 2, 1);
}

TEST(Rank, SharesAMachineWhereNothingElseIsSaid) {
    expect_rank({{"RANK", "1"}, {"WORLD_SIZE", "2"}}, 1, 2, 1);
}

TEST(Rank, RefusesWhatDoesNotFit) {
    expect_error<UserError>(
        [] {
            rank_in({{"RANK", "one"}, {"WORLD_SIZE", "2"}});
        },
        "RANK is 'one', but must be a whole number from 0");
    expect_error<UserError>([] { rank_in({{"RANK", "-1"}, {"WORLD_SIZE", "2"}}); }, "RANK is '-1'");
    expect_error<UserError>(
        [] {
            rank_in({{"PMI_RANK", "2"}, {"PMI_SIZE", "2"}});
        },
        "PMI_RANK is 2, but must be below PMI_SIZE, which is 2");
    expect_error<UserError>(
        [] {
            rank_in({{"RANK", "1"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "2"}});
        },
        "LOCAL_RANK is 2, but must not be above RANK, which is 1");
}

}  // namespace
}  // namespace spion
