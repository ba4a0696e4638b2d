// Forward and backward pass on plain CUDA buffers and a stream of one's own: everything that is
// allocated or compiled is so before the first call, which then only launches.
#include <cuda_runtime.h>
#include <spion/spion.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

void require(cudaError_t result) {
    if (result != cudaSuccess) {
        std::fprintf(stderr, "03_attention_cuda: %s\n", cudaGetErrorString(result));
        std::exit(1);
    }
}

void* allocate(std::size_t bytes) {
    void* memory = nullptr;
    require(cudaMalloc(&memory, bytes));
    return memory;
}

constexpr std::int64_t kBatch = 2, kHeads = 4, kLength = 1024, kWidth = 64;

// A band of three blocks, and everybody looks at the first block.
spion::Pattern band_and_first_block() {
    std::vector<std::uint8_t> bits(16 * 16);
    for (int row = 0; row < 16; ++row) {
        for (int column = 0; column < 16; ++column) {
            bits[row * 16 + column] = column == 0 || std::abs(row - column) <= 1;
        }
    }
    return spion::Pattern::from_bits(kLength, 64, bits);
}

// bf16 [B, H, L, D] on the device, +-0.5 to 1.
spion_tensor random_tensor() {
    std::vector<std::uint16_t> values(kBatch * kHeads * kLength * kWidth);
    for (std::uint16_t& value : values) {
        value = static_cast<std::uint16_t>(0x3f00 + std::rand() % 128 + 0x8000 * (std::rand() % 2));
    }
    void* const memory = allocate(2 * values.size());
    require(cudaMemcpy(memory, values.data(), 2 * values.size(), cudaMemcpyHostToDevice));
    return spion::tensor(memory, spion::DType::kBf16, kBatch, kHeads, kLength, kWidth);
}

}  // namespace

int main() try {
    const spion::Pattern pattern = band_and_first_block();
    const auto context = spion::Context::cuda();
    const auto plan = context.plan({.heads = kHeads, .head_dim = kWidth, .length = kLength});

    // Ours: the stream, the tensors, the pattern's tables and the workspace.
    cudaStream_t stream = nullptr;
    require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    spion_tensor tensors[8];  // q k v o, d_o d_q d_k d_v
    for (spion_tensor& tensor : tensors) tensor = random_tensor();
    auto* const lse = static_cast<float*>(allocate(4 * kBatch * kHeads * kLength));
    const std::vector<std::int32_t> tables = plan.tables(pattern);
    void* const device_tables = allocate(plan.table_bytes());
    require(cudaMemcpy(device_tables, tables.data(), plan.table_bytes(), cudaMemcpyHostToDevice));
    const spion::Workspace workspace = plan.workspace(kBatch, spion::Pass::kBackward);
    void* const scratch = allocate(workspace.bytes);
    plan.prepare_workspace(kBatch, spion::Pass::kBackward, scratch, workspace.bytes, stream);

    const auto& [q, k, v, o, d_o, d_q, d_k, d_v] = tensors;
    plan.forward({.q = q,
                  .k = k,
                  .v = v,
                  .o = o,
                  .lse = lse,
                  .tables = device_tables,
                  .table_bytes = plan.table_bytes(),
                  .workspace = scratch,
                  .workspace_bytes = workspace.bytes,
                  .table_head = tables.data()},  // so that another plan's would be refused
                 stream);
    plan.backward({.q = q,
                   .k = k,
                   .v = v,
                   .o = o,
                   .d_o = d_o,
                   .d_q = d_q,
                   .d_k = d_k,
                   .d_v = d_v,
                   .lse = lse,
                   .tables = device_tables,
                   .table_bytes = plan.table_bytes(),
                   .workspace = scratch,
                   .workspace_bytes = workspace.bytes,
                   .table_head = tables.data()},
                  stream);
    require(cudaStreamSynchronize(stream));

    float first = 0;
    require(cudaMemcpy(&first, lse, sizeof first, cudaMemcpyDeviceToHost));
    std::printf("%s: %.1f %% of the map computed; LSE of the first row %.4f; %s",
                context.device().c_str(), 100 * pattern.density(), first, plan.explain().c_str());
    return 0;
} catch (const spion::Error& error) {
    std::fprintf(stderr, "03_attention_cuda: %s\n", error.what());
    return 1;
}
