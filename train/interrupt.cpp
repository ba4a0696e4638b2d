#include "train/interrupt.h"

#include <csignal>

namespace spion {
namespace {

// A signal handler can reach nothing but a global.
volatile std::sig_atomic_t interrupt_requested = 0;

extern "C" void spion_note_interrupt(int signal) {
    interrupt_requested = 1;
    std::signal(signal, SIG_DFL);
}

}  // namespace

InterruptGuard::InterruptGuard() {
    interrupt_requested = 0;
    std::signal(SIGINT, spion_note_interrupt);
    std::signal(SIGTERM, spion_note_interrupt);
}

InterruptGuard::~InterruptGuard() {
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
}

bool InterruptGuard::requested() const {
    return interrupt_requested != 0;
}

}  // namespace spion
