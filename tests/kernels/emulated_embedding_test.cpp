// The CUDA kernels of a fused embedding, run on the host.
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/kernels/cuda_emulation.h"
#include "tests/kernels/embedding_problem.h"
#include "tests/kernels/emulated_linears.h"
#include "tests/kernels/given_step.h"
#include "tests/kernels/guarded_output.h"
#include "tests/support/seed.h"

#define DECLARE_KERNELS(name)                                             \
    namespace emulated_##name {                                           \
        void token_position_forward(const SpionTokenPositionArguments&);  \
        void token_position_backward(const SpionTokenPositionArguments&); \
    }
DECLARE_KERNELS(embedding_paper)
DECLARE_KERNELS(embedding_kept)

namespace spion {
namespace {

class EmulatedEmbeddingTables : public testing::TestWithParam<EmulatedEmbedding> {
  protected:
    void run(int batch, int length, int positions, bool dropout, bool one_token,
             std::mt19937& random) {
        SCOPED_TRACE(testing::Message() << batch << " samples of " << length);
        const EmbeddingProblem problem(GetParam().shape, batch, length, dropout, one_token, random);
        const auto seed = static_cast<unsigned>(random());
        const bool paper = std::string(GetParam().name) == "embedding_paper";
        auto x = guarded_output<std::uint16_t>(static_cast<std::int64_t>(problem.d_x.size()));
        auto kept = guarded_output<unsigned>(static_cast<std::int64_t>(problem.kept.size()));
        SpionTokenPositionArguments arguments = problem.arguments();
        const GivenStep given(arguments.draws, random() % 2 == 0);
        arguments.draws = given.draws();
        arguments.x = x.data();
        arguments.kept = kept.data();
        launch(FusedEmbeddingKernel::kTokenPositionForward,
               fused_embedding_forward_items(batch, length), seed, arguments,
               paper ? emulated_embedding_paper::token_position_forward
                     : emulated_embedding_kept::token_position_forward);
        problem.expect_forward(without_guard(x), without_guard(kept));

        const std::int64_t items = (length + positions - 1) / positions;
        auto partials =
            guarded_output<float>(items * static_cast<std::int64_t>(problem.token.size()));
        auto d_position = guarded_output<float>(static_cast<std::int64_t>(problem.position.size()));
        arguments = problem.arguments();
        arguments.d_token_partials = partials.data();
        arguments.d_position = d_position.data();
        arguments.positions_per_item = positions;
        launch(FusedEmbeddingKernel::kTokenPositionBackward, items, seed, arguments,
               paper ? emulated_embedding_paper::token_position_backward
                     : emulated_embedding_kept::token_position_backward);
        problem.expect_backward(without_guard(partials), without_guard(d_position));
    }

  private:
    static void launch(FusedEmbeddingKernel which, std::int64_t items, unsigned seed,
                       const SpionTokenPositionArguments& arguments,
                       void (*kernel)(const SpionTokenPositionArguments&)) {
        emulation::launch(items, fused_embedding_threads(which),
                          fused_embedding_shared_bytes(which, GetParam().shape), seed,
                          [&] { kernel(arguments); });
    }
};

TEST_P(EmulatedEmbeddingTables, MatchesTheReference) {
    const std::uint64_t drawn = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(drawn));
    std::mt19937 random(static_cast<unsigned>(drawn));
    run(1, 1, 1, true, false, random);
    run(17, 3, 1, false, true, random);
    // Two and seven positions an item, of which the last has fewer; their slots take several stages.
    run(std::uniform_int_distribution<int>(258, 300)(random), 5, 2, true, false, random);
    run(std::uniform_int_distribution<int>(37, 80)(random), 11, 7, true, false, random);
}

INSTANTIATE_TEST_SUITE_P(Embeddings, EmulatedEmbeddingTables,
                         testing::ValuesIn(emulated_embeddings()),
                         [](const auto& embedding) { return std::string(embedding.param.name); });

}  // namespace
}  // namespace spion
