#include "runtime/disassemble.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "ir/error.h"
#include "runtime/atomic_file.h"
#include "runtime/environment.h"

extern char** environ;

namespace spion {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrograms[] = {"nvdisasm", "cuobjdump"};

bool is_program(const fs::path& path) {
    std::error_code ignored;
    return fs::is_regular_file(path, ignored) && access(path.c_str(), X_OK) == 0;
}

// A folder for the files that pass between us and the disassembler, gone at the end.
class Exchange {
  public:
    Exchange() {
        std::error_code error;
        const fs::path temporary = fs::temp_directory_path(error);
        std::string name = (error ? fs::path("/tmp") : temporary) / "spion-sass.XXXXXX";
        if (mkdtemp(name.data()) == nullptr) {
            throw DeviceError("no temporary folder can be made as {}: {}", name,
                              std::strerror(errno));
        }
        path_ = name;
    }
    ~Exchange() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;
    std::string file(const char* name) const { return path_ / name; }

  private:
    fs::path path_;
};

std::string contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// Runs a program to its end, its output in a file; its exit status, or -1.
int run_to_file(const std::string& program, const char* flag, const std::string& input,
                const std::string& out, const std::string& err) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC;
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), kFlags, 0600);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), kFlags, 0600);
    std::string words[] = {program, flag, input};
    char* arguments[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
    // What we ignore ourselves (runtime/output.h) is nothing that the program must.
    sigset_t usual;
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    sigaddset(&usual, SIGXFSZ);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    pid_t child = 0;
    const int failed =
        posix_spawn(&child, program.c_str(), &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    int status = -1;
    if (failed != 0 || waitpid(child, &status, 0) != child) {
        return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

std::optional<std::string> find_disassembler() {
    if (const auto given = environment_value("SPION_DISASSEMBLER")) {
        if (!is_program(*given)) {
            throw UserError(
                "SPION_DISASSEMBLER names {}, which is no program: set it to the path of nvdisasm "
                "or cuobjdump, or unset it",
                *given);
        }
        return given;
    }
    std::istringstream folders(environment_value("PATH").value_or("") + ":/usr/local/cuda/bin");
    for (std::string folder; std::getline(folders, folder, ':');) {
        for (const char* program : kPrograms) {
            if (!folder.empty() && is_program(fs::path(folder) / program)) {
                return fs::path(folder) / program;
            }
        }
    }
    return std::nullopt;
}

std::string disassembler_missing() {
    return "no SASS: neither nvdisasm nor cuobjdump is on PATH or in /usr/local/cuda/bin; install "
           "the toolkit's package cuda-nvdisasm, or set SPION_DISASSEMBLER to the path of one";
}

std::string disassemble(const std::string& program, const std::string& cubin) {
    const Exchange exchange;
    const std::string input = exchange.file("kernel.cubin");
    write_file(input, cubin, "name a folder with room with TMPDIR");
    const bool dumps = fs::path(program).filename() == "cuobjdump";
    const int status = run_to_file(program, dumps ? "-sass" : "-c", input, exchange.file("out"),
                                   exchange.file("err"));
    const std::string text = contents(exchange.file("out"));
    if (status != 0 || text.empty()) {
        std::string words = contents(exchange.file("err"));
        while (words.ends_with('\n')) {
            words.pop_back();
        }
        throw DeviceError("{} cannot read the cubin (exit status {}): {}", program, status, words);
    }
    return text;
}

}  // namespace spion
