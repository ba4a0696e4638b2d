#include "runtime/whole_file.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

namespace spion {

std::optional<std::string> read_whole_file(const std::filesystem::path& file, std::size_t most,
                                           std::string* problem) {
    const auto fail = [problem](std::string reason) -> std::optional<std::string> {
        if (problem != nullptr) *problem = std::move(reason);
        return std::nullopt;
    };
    std::error_code error;
    const auto status = std::filesystem::status(file, error);
    if (status.type() == std::filesystem::file_type::not_found) return fail("is not there");
    if (error) return fail(fmt::format("cannot be read ({})", error.message()));
    if (!std::filesystem::is_regular_file(status)) return fail("is no regular file");
    errno = 0;
    std::ifstream input(file, std::ios::binary);
    if (!input) return fail(fmt::format("cannot be read ({})", std::strerror(errno)));
    std::string text;
    // By pieces, for a file may grow while it is read, and some, as of /proc, say that they are empty.
    constexpr std::size_t kPiece = std::size_t{1} << 20;
    while (input && text.size() <= most) {
        const std::size_t before = text.size();
        text.resize(before + std::min(kPiece, most + 1 - before));
        input.read(text.data() + before, static_cast<std::streamsize>(text.size() - before));
        text.resize(before + static_cast<std::size_t>(input.gcount()));
    }
    if (input.bad()) return fail(fmt::format("cannot be read ({})", std::strerror(errno)));
    if (text.size() > most) return fail(fmt::format("has more than {} MiB", most >> 20));
    return text;
}

}  // namespace spion
