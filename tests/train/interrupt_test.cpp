#include "train/interrupt.h"

#include <gtest/gtest.h>

namespace spion {
namespace {

void (*handler_of(int signal))(int) {
    struct sigaction now {};
    sigaction(signal, nullptr, &now);
    return now.sa_handler;
}

TEST(InterruptGuard, NotesASignalOnceAndRestoresWhatWasThere) {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        ASSERT_EQ(handler_of(signal), SIG_DFL);
        {
            const InterruptGuard guard;
            EXPECT_FALSE(guard.requested());
            EXPECT_EQ(interrupting_signal(), 0);
            std::raise(signal);
            EXPECT_TRUE(guard.requested());
            EXPECT_EQ(interrupting_signal(), signal);
            EXPECT_EQ(handler_of(signal), SIG_DFL) << "the second must end the process";
        }
        EXPECT_EQ(handler_of(signal), SIG_DFL);
    }
}

TEST(InterruptGuard, LeavesIgnoredSignalsIgnored) {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        std::signal(signal, SIG_IGN);
        {
            const InterruptGuard guard;
            std::raise(signal);
            EXPECT_FALSE(guard.requested());
        }
        EXPECT_EQ(handler_of(signal), SIG_IGN);
        std::signal(signal, SIG_DFL);
    }
}

}  // namespace
}  // namespace spion
