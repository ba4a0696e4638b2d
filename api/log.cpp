#include "api/log.h"

#include <new>
#include <string>
#include <string_view>

#include "runtime/output.h"

namespace spion::api {
namespace {

Log& log_of_thread() {
    thread_local Log log;
    return log;
}

// What the command prints as "spion: line". It may be lost, as there.
void hear(std::string_view text) noexcept {
    constexpr std::string_view kName = "spion: ";
    text.remove_prefix(text.starts_with(kName) ? kName.size() : 0);
    text.remove_suffix(text.ends_with('\n') ? 1 : 0);
    try {
        log_of_thread()(true, std::string(text).c_str());
    } catch (const std::bad_alloc&) {
    }
}

// When the library is loaded, before anything of it is called.
[[maybe_unused]] const bool listening = [] {
    set_listener(hear);
    return true;
}();

}  // namespace

LogScope::LogScope(Log log) : before_(log_of_thread()) {
    log_of_thread() = log;
}

LogScope::~LogScope() {
    log_of_thread() = before_;
}

}  // namespace spion::api
