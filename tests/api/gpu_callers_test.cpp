// What callers of a GPU do: memory that the kernel before is still writing, what is wrong and must
// be said before anything is launched, several GPUs, a fork.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/api/cuda_fixture.h"
#include "tests/api/expect_status.h"

namespace spion::test {
namespace {

// A kernel that lets the next one start at once, and only then, after 0.3 ms, copies `words` words:
// what a kernel that does not wait before it reads them gets wrong.
class LateCopy {
  public:
    explicit LateCopy(const std::string& target) : kernel_(text(target), "late_copy") {}

    void operator()(const cuda::Memory& to, const cuda::Memory& from, void* stream) const {
        void* destination = to.data();
        void* source = from.data();
        unsigned words = static_cast<unsigned>(from.bytes() / 4), nanoseconds = 300000;
        void* parameters[] = {&destination, &source, &words, &nanoseconds};
        kernel_.launch(1, 256, stream, parameters);
    }

  private:
    static std::string text(const std::string& target) {
        const bool hopper = target.starts_with("sm_9") || target.starts_with("sm_1");
        return std::string(".version 8.0\n.target ") + (hopper ? "sm_90" : "sm_80") +
               R"(
.address_size 64
.visible .entry late_copy(.param .u64 to, .param .u64 from, .param .u32 words, .param .u32 wait) {
.reg .pred %p;
.reg .b32 %r<5>;
.reg .b64 %d<9>;
)" + (hopper ? "griddepcontrol.launch_dependents;" : "") +
               R"(
ld.param.u64 %d0, [to];
ld.param.u64 %d1, [from];
ld.param.u32 %r0, [words];
ld.param.u32 %r1, [wait];
cvt.u64.u32 %d2, %r1;
mov.u64 %d3, %globaltimer;
waiting:
mov.u64 %d4, %globaltimer;
sub.u64 %d5, %d4, %d3;
setp.lt.u64 %p, %d5, %d2;
@%p bra waiting;
mov.u32 %r2, %tid.x;
mov.u32 %r3, %ntid.x;
copying:
setp.ge.u32 %p, %r2, %r0;
@%p bra done;
mul.wide.u32 %d6, %r2, 4;
add.u64 %d7, %d1, %d6;
add.u64 %d8, %d0, %d6;
ld.global.u32 %r4, [%d7];
st.global.u32 [%d8], %r4;
add.u32 %r2, %r2, %r3;
bra copying;
done:
ret;
}
)";
    }
    cuda::Kernel kernel_;
};

using Tables = std::vector<std::int32_t>;

// Tables and lengths that the kernel before a call writes are those that it takes: without a flag,
// with the flag on what follows it, and in a graph.
TEST_F(ApiGpu, TakesWhatTheKernelBeforeWrites) {
    const LateCopy late(context().target());
    struct Shape {
        int block, head_dim;
    };
    for (const Shape shape : {Shape{32, 32}, {16, 64}, {64, 64}, {128, 64}, {64, 128}, {64, 80}}) {
        SCOPED_TRACE("block " + std::to_string(shape.block) +
                     " D=" + std::to_string(shape.head_dim));
        oracle::Problem old = problem(1000, shape.block, shape.head_dim, 0.3, true);
        oracle::Problem fresh = old;
        fresh.bits = oracle::random_bits(1000, shape.block, 0.3, seed_++);
        fresh.lengths = {1000, 333};
        old.lengths = {500, 1000};
        const Plan plan = plan_of(old);
        CudaCall call(plan, old, stream_->get());
        const cuda::Memory tables(plan.tables(CudaCall::pattern_of(fresh)));
        const cuda::Memory lengths(fresh.lengths);
        const auto overwrite = [&] {
            late(call.tables(), tables, stream_->get());
            late(call.valid(), lengths, stream_->get());
        };
        const auto restore = [&] {
            call.set_pattern(CudaCall::pattern_of(old));
            call.valid().write(old.lengths);
            call.poison();
        };
        const auto expect_fresh = [&](const char* how) {
            stream_->wait();
            EXPECT_EQ(oracle::faults(fresh, call.outputs(), kTolerance), "") << how;
        };
        call.run(stream_->get());
        stream_->wait();
        EXPECT_EQ(oracle::faults(old, call.outputs(), kTolerance), "");

        restore();
        overwrite();
        call.run(stream_->get());
        expect_fresh("calls without a flag");

        restore();
        overwrite();
        plan.forward(call.forward_arguments(), stream_->get());
        plan.backward(call.backward_arguments(SPION_OVERLAP), stream_->get());
        plan.forward(call.forward_arguments(SPION_OVERLAP), stream_->get());
        expect_fresh("calls behind one that has waited");

        const cuda::Graph graph(*stream_, [&] {
            overwrite();
            call.run(stream_->get());
        });
        restore();
        graph.launch(*stream_);
        expect_fresh("a graph");
    }
}

// Behind what is no kernel, behind another stream, and behind both at once.
TEST_F(ApiGpu, IsCapturedBehindCopiesAndOtherStreams) {
    for (const int block : {32, 64, 128}) {
        oracle::Problem asked = problem(1000, block, 64, 0.3);
        const Plan plan = plan_of(asked);
        CudaCall call(plan, asked, stream_->get()), beside(plan, asked, stream_->get());
        const cuda::Stream other;
        const LateCopy late(context().target());
        oracle::Problem fresh = asked;
        fresh.bits = oracle::random_bits(1000, block, 0.3, seed_++);
        const cuda::Memory tables(plan.tables(CudaCall::pattern_of(fresh)));
        const cuda::Graph graph(*stream_, [&] {
            const ForwardArguments args = call.forward_arguments();
            plan.prepare_workspace(asked.batch, Pass::kBackward, args.workspace,
                                   args.workspace_bytes, stream_->get());  // a node of its own kind
            plan.forward(args, stream_->get());
            other.wait_for(*stream_);
            beside.run(other.get());
            late(call.tables(), tables, other.get());
            plan.prepare_workspace(asked.batch, Pass::kBackward, args.workspace,
                                   args.workspace_bytes, stream_->get());
            stream_->wait_for(other);
            call.run(stream_->get());
        });
        call.poison();
        beside.poison();
        graph.launch(*stream_);
        stream_->wait();
        EXPECT_EQ(oracle::faults(fresh, call.outputs(), kTolerance), "") << "block " << block;
        EXPECT_EQ(oracle::faults(asked, beside.outputs(), kTolerance), "") << "block " << block;
    }
}

// Refused before anything is launched: no output is touched.
class ApiGpuMistakes : public ApiGpu {
  protected:
    void SetUp() override {
        ApiGpu::SetUp();
        if (IsSkipped()) return;
        asked_ = problem(1000, 64, 64, 0.3, true);
        plan_.emplace(plan_of(asked_));
        call_.emplace(*plan_, asked_, stream_->get());
        stream_->wait();
        call_->poison();
        untouched_ = call_->bytes();
    }
    template <typename Kind = UserError>
    void refuses(const std::function<void(ForwardArguments&)>& change, const std::string& words,
                 void* stream = nullptr) {
        ForwardArguments args = call_->forward_arguments();
        change(args);
        expect_status<Kind>(
            [&] { plan_->forward(args, stream == nullptr ? stream_->get() : stream); }, words);
        SPION_TEST_CUDA(cuCtxSynchronize);
        EXPECT_TRUE(call_->bytes() == untouched_) << "something was launched: " << words;
    }

    oracle::Problem asked_;
    std::optional<Plan> plan_;
    std::optional<CudaCall> call_;
    std::vector<std::uint8_t> untouched_;
};

TEST_F(ApiGpuMistakes, TablesOfAnotherPlan) {
    Attention other = cuda_attention(asked_);
    other.scale = 0.5;
    const Plan foreign =
        context().plan(other, {.typical = CudaCall::pattern_of(asked_), .batch = asked_.batch});
    ASSERT_EQ(foreign.table_bytes(), plan_->table_bytes()) << "the size would say it";
    const Pattern pattern = CudaCall::pattern_of(asked_);
    const Tables theirs = foreign.tables(pattern), ours = plan_->tables(pattern);
    const Tables none(theirs.size());
    refuses([&](ForwardArguments& a) { a.table_head = theirs.data(); },
            "were written for another plan");
    refuses([&](ForwardArguments& a) { a.table_head = none.data(); }, "are no tables of spion");
    call_->tables().write(theirs);
    refuses([](ForwardArguments& a) { a.flags = SPION_CHECK; }, "were written for another plan");
    call_->tables().write(ours);
    // The plan's own are taken, and give the same bits with the order made for them or for another.
    const Tables another =
        plan_->tables(Pattern::from_bits(1000, 64, oracle::random_bits(1000, 64, 0.9, seed_++)));
    std::vector<std::vector<std::uint8_t>> bytes;
    for (const std::int32_t* head :
         {static_cast<const std::int32_t*>(nullptr), ours.data(), another.data()}) {
        call_->poison();
        ForwardArguments forward = call_->forward_arguments(SPION_CHECK);
        BackwardArguments backward = call_->backward_arguments(SPION_CHECK);
        forward.table_head = backward.table_head = head;
        plan_->forward(forward, stream_->get());
        plan_->backward(backward, stream_->get());
        stream_->wait();
        bytes.push_back(call_->bytes());
    }
    EXPECT_EQ(oracle::faults(asked_, call_->outputs(), kTolerance), "");
    EXPECT_TRUE(bytes[0] == bytes[1] && bytes[1] == bytes[2]) << "the order of work changed bits";
}

TEST_F(ApiGpuMistakes, LengthsOutOfRange) {
    for (const std::int32_t wrong : {1001, -1}) {
        call_->valid().write(std::vector<std::int32_t>{7, wrong});
        refuses([](ForwardArguments& a) { a.flags = SPION_CHECK; },
                "lengths[1] is " + std::to_string(wrong) + ": give 0 to 1000, the number of keys");
    }
    // Without the flag they are not looked at: below 0 is 0, above L is L.
    call_->valid().write(std::vector<std::int32_t>{5000, -9});
    call_->run(stream_->get());
    stream_->wait();
    oracle::Problem clamped = asked_;
    clamped.lengths = {1000, 0};
    EXPECT_EQ(oracle::faults(clamped, call_->outputs(), kTolerance), "");
}

TEST_F(ApiGpuMistakes, AWorkspaceThatIsNotPrepared) {
    const ForwardArguments args = call_->forward_arguments();
    SPION_TEST_CUDA(cuMemsetD8_v2, reinterpret_cast<cuda::Pointer>(args.workspace), 0x5A, 8);
    SPION_TEST_CUDA(cuCtxSynchronize);  // the call's stream waits for no other
    refuses([](ForwardArguments& a) { a.flags = SPION_CHECK; }, "the workspace is not prepared");
    plan_->prepare_workspace(asked_.batch, Pass::kBackward, args.workspace, args.workspace_bytes,
                             stream_->get());
    plan_->forward(call_->forward_arguments(SPION_CHECK), stream_->get());
}

TEST_F(ApiGpuMistakes, ACheckInACapture) {
    const cuda::Graph graph(*stream_, [&] {
        expect_status<UserError>(
            [&] { plan_->forward(call_->forward_arguments(SPION_CHECK), stream_->get()); },
            "is being captured");
        call_->run(stream_->get());  // the capture goes on
    });
    graph.launch(*stream_);
    stream_->wait();
    EXPECT_EQ(oracle::faults(asked_, call_->outputs(), kTolerance), "");
}

TEST_F(ApiGpuMistakes, MemoryAndStreamsOfAnotherContext) {
    void* other = nullptr;
    SPION_TEST_CUDA(cuCtxCreate_v2, &other, 0U, 0);  // and makes it current
    {
        const cuda::Memory memory(static_cast<std::size_t>(2) * 2 * 2 * 1000 * 64);
        const cuda::Stream stream;
        SPION_TEST_CUDA(cuCtxSetCurrent, primary_->get());
        refuses([&](ForwardArguments& a) { a.q.data = memory.data(); }, "another CUDA context");
        refuses([&](ForwardArguments& a) { a.tables = memory.data(); }, "another CUDA context");
        refuses([](ForwardArguments&) {}, "the stream is of another CUDA context", stream.get());
        refuses([](ForwardArguments& a) { a.flags = SPION_CHECK; },
                "the stream is of another CUDA context", stream.get());
        SPION_TEST_CUDA(cuCtxSetCurrent, other);
    }
    SPION_TEST_CUDA(cuCtxDestroy_v2, other);
    SPION_TEST_CUDA(cuCtxSetCurrent, primary_->get());
}

// The child is told so by everything that would use the GPU, and the parent goes on.
TEST_F(ApiGpuMistakes, UseAfterAFork) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        const auto said = [](const std::function<void()>& action, const std::string& words) {
            try {
                action();
            } catch (const Error& error) {
                return std::string(error.what()).find(words) != std::string::npos;
            }
            return false;
        };
        const bool old = said([&] { plan_->forward(call_->forward_arguments(), nullptr); },
                              "make the context after the fork");
        const bool fresh =
            said([] { Context::cuda(0, {.memory_only = true}); }, "before this process was forked");
        _exit(old && fresh ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    call_->run(stream_->get());
    stream_->wait();
    EXPECT_EQ(oracle::faults(asked_, call_->outputs(), kTolerance), "");
}

// Every GPU that the process sees, at the same time and with the same bits where they are alike.
TEST_F(ApiGpu, EveryGpuHasItsOwnContext) {
    const oracle::Problem asked = problem(1000, 64, 64, 0.3);
    const Plan first = plan_of(asked);
    CudaCall here(first, asked, stream_->get());
    here.run(stream_->get());
    stream_->wait();
    int count = 0;
    SPION_TEST_CUDA(cuDeviceGetCount, &count);
    ASSERT_GE(count, 1);
    for (int ordinal = 1; ordinal < count; ++ordinal) {
        here.poison();
        const cuda::Primary current(ordinal);
        const cuda::Stream stream;
        const Context there = Context::cuda(ordinal, {.memory_only = true});
        const Plan plan =
            there.plan(cuda_attention(asked), {.typical = CudaCall::pattern_of(asked), .batch = 2});
        CudaCall call(plan, asked, stream.get());
        here.run(stream_->get());  // the other GPU's context is current
        call.run(stream.get());
        stream.wait();
        EXPECT_EQ(oracle::faults(asked, call.outputs(), kTolerance), "") << "GPU " << ordinal;
        const std::vector<std::uint8_t> bytes = call.bytes();
        ForwardArguments args = call.forward_arguments();
        args.v = here.forward_arguments().v;
        expect_status<UserError>([&] { plan.forward(args, stream.get()); },
                                 "is memory of another GPU");
        expect_status<UserError>([&] { plan.forward(call.forward_arguments(), stream_->get()); },
                                 "the stream is of another CUDA context");
        SPION_TEST_CUDA(cuCtxSetCurrent, primary_->get());
        stream_->wait();
        const bool alike = there.device() == context().device();
        EXPECT_TRUE(!alike || bytes == here.bytes()) << "GPU " << ordinal << " gave other bits";
        SPION_TEST_CUDA(cuCtxSetCurrent, current.get());
    }
    SPION_TEST_CUDA(cuCtxSetCurrent, primary_->get());
    std::printf("%d GPUs\n", count);
    expect_status<UserError>([&] { Context::cuda(count); }, "was asked for");
}

}  // namespace
}  // namespace spion::test
