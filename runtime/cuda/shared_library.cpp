#include "runtime/cuda/shared_library.h"

#include <dlfcn.h>
#include <elf.h>
#include <fmt/format.h>
#include <link.h>
#include <sys/stat.h>

#include <cstring>
#include <string_view>

namespace spion {
namespace {

// The loader's message without the name that it repeats: "libx.so: cannot open ...: No such file".
std::string reason_of(const std::string& candidate, const char* message) {
    std::string_view text = message == nullptr ? "unknown reason" : message;
    if (text.starts_with(candidate + ": ")) {
        text.remove_prefix(candidate.size() + 2);
    }
    if (text.find("No such file") != std::string_view::npos) {
        return "not found";
    }
    return std::string(text);
}

// Search state and result of walking the loaded objects for a build id.
struct BuildIdSearch {
    ElfW(Addr) base;
    std::string id;
};

std::string build_id_in(const unsigned char* note, std::size_t bytes) {
    while (bytes >= sizeof(ElfW(Nhdr))) {
        const auto* header = reinterpret_cast<const ElfW(Nhdr)*>(note);
        const std::size_t name = (header->n_namesz + 3U) & ~std::size_t{3};
        const std::size_t content = (header->n_descsz + 3U) & ~std::size_t{3};
        const std::size_t size = sizeof(ElfW(Nhdr)) + name + content;
        if (size > bytes) {
            break;
        }
        if (header->n_type == NT_GNU_BUILD_ID && header->n_namesz == 4 &&
            std::memcmp(note + sizeof(ElfW(Nhdr)), "GNU", 4) == 0) {
            const unsigned char* first = note + sizeof(ElfW(Nhdr)) + name;
            std::string id;
            for (std::size_t i = 0; i < header->n_descsz; ++i) {
                id += fmt::format("{:02x}", first[i]);
            }
            return id;
        }
        note += size;
        bytes -= size;
    }
    return {};
}

int find_build_id(dl_phdr_info* info, std::size_t, void* data) {
    auto* search = static_cast<BuildIdSearch*>(data);
    if (info->dlpi_addr != search->base) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum && search->id.empty(); ++i) {
        const auto& segment = info->dlpi_phdr[i];
        if (segment.p_type == PT_NOTE) {
            search->id = build_id_in(
                reinterpret_cast<const unsigned char*>(info->dlpi_addr + segment.p_vaddr),
                segment.p_memsz);
        }
    }
    return 1;
}

}  // namespace

SharedLibrary::SharedLibrary(const std::vector<std::string>& candidates) {
    for (const std::string& candidate : candidates) {
        // Lazy binding: resolving every symbol of such a library takes twice as long as opening it.
        handle_ = dlopen(candidate.c_str(), RTLD_LAZY | RTLD_LOCAL);
        if (handle_ != nullptr) {
            link_map* map = nullptr;
            path_ = dlinfo(handle_, RTLD_DI_LINKMAP, &map) == 0 ? map->l_name : candidate;
            return;
        }
        failures_ += fmt::format("{}{} ({})", failures_.empty() ? "" : ", ", candidate,
                                 reason_of(candidate, dlerror()));
    }
}

std::string SharedLibrary::identity() const {
    link_map* map = nullptr;
    if (handle_ == nullptr || dlinfo(handle_, RTLD_DI_LINKMAP, &map) != 0) {
        return {};
    }
    BuildIdSearch search{.base = map->l_addr, .id = {}};
    dl_iterate_phdr(find_build_id, &search);
    if (!search.id.empty()) {
        return search.id;
    }
    struct stat file {};
    if (stat(path_.c_str(), &file) != 0) {
        return path_;
    }
    return fmt::format("{}-{}.{:09}", file.st_size, file.st_mtim.tv_sec, file.st_mtim.tv_nsec);
}

void* SharedLibrary::symbol(const char* name) const {
    return handle_ == nullptr ? nullptr : dlsym(handle_, name);
}

}  // namespace spion
