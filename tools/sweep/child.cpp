#include "tools/sweep/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "ir/error.h"
#include "runtime/environment.h"

namespace spion::sweep {
namespace {

constexpr std::string_view kGpus = "CUDA_VISIBLE_DEVICES=";

// What makes a process one of several (runtime/ranks/rank.h).
constexpr std::string_view kOfJobs[] = {
    "RANK=", "OMPI_COMM_WORLD_RANK=", "PMI_RANK=", "SLURM_PROCID="};

std::vector<std::string> environment_for(const std::string& gpu) {
    std::vector<std::string> variables;
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string_view text = *entry;
        const bool of_job =
            std::any_of(std::begin(kOfJobs), std::end(kOfJobs),
                        [&](std::string_view name) { return text.starts_with(name); });
        if (!of_job && (gpu.empty() || !text.starts_with(kGpus))) variables.emplace_back(text);
    }
    if (!gpu.empty()) variables.push_back(std::string(kGpus) + gpu);
    return variables;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
    std::vector<char*> pointers;
    for (std::string& text : texts) pointers.push_back(text.data());
    pointers.push_back(nullptr);
    return pointers;
}

constexpr int kNotStarted = 127;

// In the child: nothing that takes a lock.
[[noreturn]] void become(const char* program, char** arguments, char** variables, const char* out,
                         const char* err) {
    constexpr int kAppend = O_WRONLY | O_CREAT | O_APPEND;
    ::setpgid(0, 0);  // a Ctrl-C at the terminal is passed on once
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    for (const int signal : {SIGPIPE, SIGXFSZ, SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_DFL);
    const int files[] = {::open("/dev/null", O_RDONLY), ::open(out, kAppend, 0666),
                         ::open(err, kAppend, 0666)};
    for (int i = 0; i < 3; ++i) {
        if (files[i] < 0 || ::dup2(files[i], i) < 0) ::_exit(kNotStarted);
        if (files[i] > STDERR_FILENO) ::close(files[i]);
    }
    ::execve(program, arguments, variables);
    ::_exit(kNotStarted);
}

}  // namespace

Child::Child(const std::vector<std::string>& arguments, const std::filesystem::path& out,
             const std::filesystem::path& err, const std::string& gpu) {
    const std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
    std::vector<std::string> words{program}, variables = environment_for(gpu);
    words.insert(words.end(), arguments.begin(), arguments.end());
    const std::vector<char*> word_pointers = pointers_to(words),
                             variable_pointers = pointers_to(variables);
    pid_ = ::fork();
    if (pid_ < 0) {
        throw DeviceError("no process can be started: {}; raise the limit on processes",
                          std::strerror(errno));
    }
    if (pid_ == 0) {
        become(program.c_str(), const_cast<char**>(word_pointers.data()),
               const_cast<char**>(variable_pointers.data()), out.c_str(), err.c_str());
    }
}

std::optional<int> Child::ended() {
    int status = 0;
    const pid_t found = ::waitpid(pid_, &status, WNOHANG);
    if (found == 0 || (found < 0 && errno == EINTR)) return std::nullopt;
    constexpr int kBySignal = 128;
    if (found < 0) return kNotStarted;
    return WIFEXITED(status) ? WEXITSTATUS(status) : kBySignal + WTERMSIG(status);
}

void Child::tell(int signal) const {
    ::kill(pid_, signal);
}

}  // namespace spion::sweep
