// What a binary and its compiler's log say of themselves.
#include <elf.h>

#include <algorithm>
#include <cstring>

#include "compiler/report.h"

namespace spion {
namespace {

template <typename Header>
bool read_header(std::string_view elf, std::uint64_t at, Header& header) {
    if (at > elf.size() || elf.size() - at < sizeof(Header)) {
        return false;
    }
    std::memcpy(&header, elf.data() + at, sizeof(Header));
    return true;
}

}  // namespace

std::int64_t code_bytes(std::string_view elf) {
    Elf64_Ehdr header{};
    if (!read_header(elf, 0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_ident[EI_CLASS] != ELFCLASS64) {
        return 0;
    }
    std::int64_t bytes = 0;
    for (std::uint64_t i = 0; i < header.e_shnum; ++i) {
        Elf64_Shdr section{};
        if (!read_header(elf, header.e_shoff + i * header.e_shentsize, section)) {
            return 0;
        }
        const bool code = section.sh_type == SHT_PROGBITS && (section.sh_flags & SHF_EXECINSTR);
        if (code && section.sh_size > elf.size()) {
            return 0;
        }
        bytes += code ? static_cast<std::int64_t>(section.sh_size) : 0;
    }
    return bytes;
}

std::vector<std::string> warnings_in(std::string_view log) {
    std::vector<std::string> warnings;
    while (!log.empty()) {
        const std::string_view line = log.substr(0, log.find('\n'));
        if (line.find("warning") != std::string_view::npos) {
            warnings.emplace_back(line);
        }
        log.remove_prefix(std::min(line.size() + 1, log.size()));
    }
    return warnings;
}

}  // namespace spion
