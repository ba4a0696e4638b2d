// CudaGraph on a driver that only writes down what is asked of it.
#include "runtime/cuda/cuda_graph.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ir/error.h"

namespace spion {
namespace {

using namespace driver_abi;

// The driver's functions are plain pointers, so its state is global.
struct CaptureDriver {
    std::vector<std::string> calls;
    Result instantiated = kSuccess, ended = kSuccess;
};
CaptureDriver driver_calls;

Context context_of(int number) {
    return reinterpret_cast<Context>(static_cast<std::uintptr_t>(number));
}

Functions functions() {
    driver_calls = {};
    Functions table{};
    table.cuCtxGetCurrent = [](Context* current) {
        *current = context_of(7);
        return kSuccess;
    };
    table.cuStreamBeginCapture_v2 = [](Stream, int mode) {
        driver_calls.calls.push_back("begin " + std::to_string(mode));
        return kSuccess;
    };
    table.cuStreamEndCapture = [](Stream, Graph* graph) {
        driver_calls.calls.emplace_back("end");
        *graph = driver_calls.ended == kSuccess ? reinterpret_cast<Graph>(8) : nullptr;
        return driver_calls.ended;
    };
    table.cuGraphInstantiateWithFlags = [](GraphExec* executable, Graph, unsigned long long) {
        driver_calls.calls.emplace_back("instantiate");
        *executable = reinterpret_cast<GraphExec>(9);
        return driver_calls.instantiated;
    };
    table.cuGraphLaunch = [](GraphExec, Stream) {
        driver_calls.calls.emplace_back("launch");
        return kSuccess;
    };
    table.cuGraphExecDestroy = [](GraphExec) {
        driver_calls.calls.emplace_back("destroy executable");
        return kSuccess;
    };
    table.cuGraphDestroy = [](Graph) {
        driver_calls.calls.emplace_back("destroy graph");
        return kSuccess;
    };
    table.cuStreamSynchronize = [](Stream) {
        driver_calls.calls.emplace_back("wait");
        return kSuccess;
    };
    return table;
}

using Calls = std::vector<std::string>;

TEST(CudaGraph, CapturesOnceAndWaitsBeforeItGoes) {
    const Functions table = functions();
    {
        LaunchedNames launched;
        launched.remember("before");
        const CudaGraph graph(table, context_of(7), nullptr, launched, [&] {
            driver_calls.calls.emplace_back("enqueue");
            launched.remember("captured");
        });
        EXPECT_EQ(launched.names(), Calls{"before"});
        EXPECT_EQ(graph.entries(), Calls{"captured"});
        EXPECT_EQ(driver_calls.calls,
                  (Calls{"begin 1", "enqueue", "end", "instantiate", "destroy graph"}));
        driver_calls.calls.clear();
        EXPECT_EQ(graph.launch(), kSuccess);
        EXPECT_EQ(graph.launch(), kSuccess);
        EXPECT_EQ(driver_calls.calls, (Calls{"launch", "launch"}));
        driver_calls.calls.clear();
    }
    EXPECT_EQ(driver_calls.calls, (Calls{"wait", "destroy executable"}));
}

// The stream stays of use: its capture has ended.
TEST(CudaGraph, EndsTheCaptureOfWhatThrows) {
    const Functions table = functions();
    LaunchedNames launched;
    launched.remember("before");
    EXPECT_THROW(CudaGraph(table, context_of(7), nullptr, launched,
                           [] { throw UserError("not to be launched"); }),
                 UserError);
    EXPECT_EQ(driver_calls.calls, (Calls{"begin 1", "end", "destroy graph"}));
    EXPECT_EQ(launched.names(), Calls{"before"});
    // Where the driver had given the capture up already.
    driver_calls.calls.clear();
    driver_calls.ended = 901;
    EXPECT_THROW(CudaGraph(table, context_of(7), nullptr, launched,
                           [] { throw UserError("not to be launched"); }),
                 UserError);
    EXPECT_EQ(driver_calls.calls, (Calls{"begin 1", "end"}));
}

TEST(CudaGraph, SaysWhatTheDriverRefused) {
    const Functions table = functions();
    LaunchedNames launched;
    driver_calls.instantiated = 801;
    EXPECT_THROW(CudaGraph(table, context_of(7), nullptr, launched, [] {}), DeviceError);
    EXPECT_EQ(driver_calls.calls, (Calls{"begin 1", "end", "instantiate", "destroy graph"}));
    driver_calls.calls.clear();
    driver_calls.ended = 901;
    EXPECT_THROW(CudaGraph(table, context_of(7), nullptr, launched, [] {}), DeviceError);
    EXPECT_EQ(driver_calls.calls, (Calls{"begin 1", "end"}));
}

}  // namespace
}  // namespace spion
