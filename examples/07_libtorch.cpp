// Attention as a module of LibTorch: torch::autograd::Function over the library's two calls, on the
// current stream, in torch's memory.
#include <c10/cuda/CUDAStream.h>
#include <spion/spion.h>
#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

spion_tensor view(const Tensor& tensor) {
    return spion::tensor(tensor.data_ptr(), spion::DType::kBf16,
                         {tensor.size(0), tensor.size(1), tensor.size(2), tensor.size(3)},
                         {tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)});
}

// A plan with the tables of one pattern on the GPU.
struct BlockSparse {
    spion::Plan plan;
    Tensor tables;                   // int32, replaced in place when the pattern changes
    std::vector<std::int32_t> head;  // the first of them, on the host: whose they are

    Tensor workspace(std::int64_t batch, spion::Pass pass, void* stream) const {
        const spion::Workspace needed = plan.workspace(batch, pass);
        Tensor memory = torch::empty({static_cast<std::int64_t>(needed.bytes)},
                                     tables.options().dtype(torch::kUInt8));
        plan.prepare_workspace(batch, pass, memory.data_ptr(), needed.bytes, stream);
        return memory;
    }
};

struct Attention : torch::autograd::Function<Attention> {
    static Tensor forward(AutogradContext* saved, const Tensor& q, const Tensor& k, const Tensor& v,
                          const BlockSparse* sparse) {
        void* const stream = c10::cuda::getCurrentCUDAStream();
        const Tensor o = torch::empty_like(q);
        const Tensor lse =
            torch::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(torch::kFloat32));
        const Tensor scratch = sparse->workspace(q.size(0), spion::Pass::kForward, stream);
        sparse->plan.forward({.q = view(q),
                              .k = view(k),
                              .v = view(v),
                              .o = view(o),
                              .lse = lse.data_ptr<float>(),
                              .tables = sparse->tables.data_ptr(),
                              .table_bytes = sparse->plan.table_bytes(),
                              .workspace = scratch.data_ptr(),
                              .workspace_bytes = static_cast<std::size_t>(scratch.numel()),
                              .table_head = sparse->head.data()},
                             stream);
        saved->save_for_backward({q, k, v, o, lse});
        saved->saved_data["sparse"] = reinterpret_cast<std::int64_t>(sparse);
        return o;
    }

    static variable_list backward(AutogradContext* saved, variable_list gradients) {
        void* const stream = c10::cuda::getCurrentCUDAStream();
        const variable_list kept = saved->get_saved_variables();
        const Tensor &q = kept[0], &k = kept[1], &v = kept[2], &o = kept[3], &lse = kept[4];
        const auto* const sparse =
            reinterpret_cast<const BlockSparse*>(saved->saved_data["sparse"].toInt());
        const Tensor d_o = gradients[0].contiguous();
        const Tensor d_q = torch::empty_like(q), d_k = torch::empty_like(k),
                     d_v = torch::empty_like(v);
        const Tensor scratch = sparse->workspace(q.size(0), spion::Pass::kBackward, stream);
        sparse->plan.backward({.q = view(q),
                               .k = view(k),
                               .v = view(v),
                               .o = view(o),
                               .d_o = view(d_o),
                               .d_q = view(d_q),
                               .d_k = view(d_k),
                               .d_v = view(d_v),
                               .lse = lse.data_ptr<float>(),
                               .tables = sparse->tables.data_ptr(),
                               .table_bytes = sparse->plan.table_bytes(),
                               .workspace = scratch.data_ptr(),
                               .workspace_bytes = static_cast<std::size_t>(scratch.numel()),
                               .table_head = sparse->head.data()},
                              stream);
        return {d_q, d_k, d_v, Tensor()};
    }
};

}  // namespace

int main() try {
    constexpr std::int64_t kHeads = 4, kLength = 512, kWidth = 64;
    const auto context = spion::Context::cuda();
    const auto plan = context.plan({.heads = kHeads, .head_dim = kWidth, .length = kLength});
    std::vector<std::int32_t> tables = plan.tables(spion::Pattern::full(kLength, 64));
    const BlockSparse sparse{
        plan,
        torch::tensor(tables, torch::kInt32).to(torch::kCUDA),
        {tables.begin(), tables.begin() + SPION_TABLE_HEAD_BYTES / sizeof(tables[0])}};

    const auto options = torch::dtype(torch::kBFloat16).device(torch::kCUDA).requires_grad(true);
    const Tensor q = torch::randn({2, kHeads, kLength, kWidth}, options), k = torch::randn_like(q),
                 v = torch::randn_like(q);
    const Tensor k_leaf = k.detach().requires_grad_(), v_leaf = v.detach().requires_grad_();

    // On the full pattern it is dense attention, which torch has too.
    const Tensor ours = Attention::apply(q, k_leaf, v_leaf, &sparse);
    ours.sum().backward();
    const Tensor ours_dq = q.grad().clone();
    q.mutable_grad() = Tensor();
    const Tensor theirs = at::scaled_dot_product_attention(q, k_leaf, v_leaf);
    theirs.sum().backward();
    const double o_error = (ours - theirs).abs().max().item<double>();
    const double dq_error = (ours_dq - q.grad()).abs().max().item<double>();
    std::printf("largest difference from torch: O %.4f, dQ %.4f\n", o_error, dq_error);
    return o_error < 0.05 && dq_error < 0.05 ? 0 : 1;
} catch (const std::exception& error) {
    std::fprintf(stderr, "07_libtorch: %s\n", error.what());
    return 1;
}
