#include "train/interrupt.h"

namespace spion {
namespace {

// A signal handler can reach nothing but a global.
volatile std::sig_atomic_t noted_signal = 0;

extern "C" void spion_note_interrupt(int signal) {
    noted_signal = signal;
    std::signal(signal, SIG_DFL);
}

}  // namespace

InterruptGuard::InterruptGuard() {
    noted_signal = 0;
    struct sigaction noting {};
    noting.sa_handler = spion_note_interrupt;
    noting.sa_flags = SA_RESTART;
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
        sigaction(kSignals[i], nullptr, &before_[i]);
        if (before_[i].sa_handler != SIG_IGN) {
            sigaction(kSignals[i], &noting, nullptr);
        }
    }
}

InterruptGuard::~InterruptGuard() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
        sigaction(kSignals[i], &before_[i], nullptr);
    }
}

bool InterruptGuard::requested() const {
    return noted_signal != 0;
}

int interrupting_signal() {
    return noted_signal;
}

}  // namespace spion
