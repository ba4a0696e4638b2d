// FusedEmbedding on a GPU, against the reference and against itself.
#include <vector>

#include "ir/error.h"
#include "tests/kernels/embedding_problem.h"
#include "tests/kernels/emulated_linears.h"
#include "tests/kernels/fused_gpu_fixture.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

class FusedEmbeddingTables : public FusedKernelGpuTest {
  protected:
    void run(const FusedEmbeddingShape& shape, int batch, int length, bool dropout,
             bool one_token) {
        SCOPED_TRACE(testing::Message() << "V=" << shape.vocabulary << ", " << batch
                                        << " samples of " << length << ", one token " << one_token);
        const FusedEmbedding fused(*device_, cache_, shape);
        const EmbeddingProblem problem(shape, batch, length, dropout, one_token, random_);
        const Buffer ids = upload(problem.ids), token = upload(problem.token),
                     position = upload(problem.position), d_x = upload(problem.d_x);
        const Buffer x = poisoned<std::uint16_t>(static_cast<long>(problem.d_x.size()));
        const Buffer kept = problem.kept.empty()
                                ? Buffer()
                                : poisoned<unsigned>(static_cast<long>(problem.kept.size()));
        SpionTokenPositionArguments arguments = problem.arguments();
        arguments.ids = ids.as<std::uint16_t>();
        arguments.token = token.as<float>();
        arguments.position = position.as<float>();
        arguments.d_x = d_x.data();
        arguments.x = x.data();
        arguments.kept = kept.as<unsigned>();
        fused.forward(arguments);
        problem.expect_forward(download<std::uint16_t>(x),
                               kept ? download<unsigned>(kept) : std::vector<unsigned>());
        std::vector<float> partials, d_position;
        for (int repeat = 0; repeat < 3; ++repeat) {
            const Buffer sums = poisoned<float>(fused_embedding_items(length) *
                                                static_cast<long>(problem.token.size())),
                         place = poisoned<float>(static_cast<long>(problem.position.size()));
            arguments.d_token_partials = sums.as<float>();
            arguments.d_position = place.as<float>();
            fused.backward(arguments);
            if (repeat == 0) {
                partials = download<float>(sums);
                d_position = download<float>(place);
                problem.expect_backward(partials, d_position);
            }
            EXPECT_EQ(download<float>(sums), partials);
            EXPECT_EQ(download<float>(place), d_position);
        }
    }
};

TEST_F(FusedEmbeddingTables, MatchTheReferenceAndRepeatThemselves) {
    for (const EmulatedEmbedding& embedding : emulated_embeddings()) {
        for (const int vocabulary : {embedding.shape.vocabulary, 512}) {
            FusedEmbeddingShape shape = embedding.shape;
            shape.vocabulary = vocabulary;
            if (!can_fuse(shape, device_->target())) continue;
            run(shape, 1, 1, true, false);
            run(shape, uniform(2, 70), uniform(2, 400), false, true);
            run(shape, uniform(2, 70), uniform(400, 2500), true, false);
        }
    }
}

// More positions than 128 items of 64.
TEST_F(FusedEmbeddingTables, TakesLongSamples) {
    run(FusedEmbeddingShape{}, 3, 64 * 128 + uniform(1, 200), true, false);
}

TEST_F(FusedEmbeddingTables, RefusesWhatHasNoKernel) {
    expect_error<InternalError>(
        [&] { FusedEmbedding(*device_, cache_, {.vocabulary = 50000}); },
        "no fused kernels for an embedding of 50000 tokens and 64 channels");
}

}  // namespace
}  // namespace spion
