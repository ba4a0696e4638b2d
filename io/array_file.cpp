#include "io/array_file.h"

#include <algorithm>
#include <filesystem>

#include "io/npy.h"
#include "io/printable.h"
#include "io/safetensors.h"
#include "io/zip.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr std::string_view kNpyExtension = ".npy";

std::string without_extension(const std::string& name) {
    return name.ends_with(kNpyExtension) ? name.substr(0, name.size() - kNpyExtension.size())
                                         : name;
}

std::vector<std::string> names_in(const Zip& zip) {
    std::vector<std::string> names;
    for (const ZipMember& member : zip.members()) {
        if (member.name.ends_with(kNpyExtension)) {
            names.push_back(without_extension(member.name));
        }
    }
    std::sort(names.begin(), names.end());
    return names;
}

// The name asked for, or the only one there is.
std::string choose(const std::string& member, const std::vector<std::string>& names,
                   const std::string& origin) {
    if (!member.empty()) {
        return member;
    }
    if (names.size() != 1) {
        throw UserError("{}: holds {} arrays ({}): name one as {}:NAME", origin, names.size(),
                        some_of(names), origin);
    }
    return names.front();
}

Array parse_npz(const Bytes& bytes, const std::string& origin, const std::string& member) {
    const Zip zip(bytes, origin);
    for (const ZipMember& item : zip.members()) {
        if (item.name.ends_with("/data.pkl")) {
            throw UserError(
                "{}: is a pickle (torch.save), which is a program and is not run: save "
                "arrays with numpy.save or safetensors.torch.save_file",
                origin);
        }
    }
    const std::vector<std::string> names = names_in(zip);
    const std::string name = choose(without_extension(member), names, origin);
    for (const ZipMember& item : zip.members()) {
        if (item.name == name + std::string(kNpyExtension)) {
            return parse_npy(zip.read(item), origin + ":" + printable(name));
        }
    }
    throw UserError("{}: there is no array {}: it has {}", origin, printable(name), some_of(names));
}

}  // namespace

FileName split_name(const std::string& name) {
    std::error_code ignored;
    const std::size_t colon = name.rfind(':');
    if (colon == std::string::npos || colon == 0 || std::filesystem::exists(name, ignored)) {
        return {.path = name, .member = {}};
    }
    return {.path = name.substr(0, colon), .member = name.substr(colon + 1)};
}

std::vector<std::string> array_names(const Bytes& bytes, const std::string& origin) {
    if (is_zip(bytes.view)) {
        return names_in(Zip(bytes, origin));
    }
    return is_safetensors(bytes.view) ? safetensors_names(bytes.view, origin)
                                      : std::vector<std::string>{};
}

Array parse_array(const Bytes& bytes, const std::string& origin, const std::string& member) {
    if (is_zip(bytes.view)) {
        return parse_npz(bytes, origin, member);
    }
    if (is_safetensors(bytes.view)) {
        const std::string name = choose(member, safetensors_names(bytes.view, origin), origin);
        return parse_safetensors(bytes, name, origin + ":" + printable(name));
    }
    if (!bytes.view.starts_with(kNpyMagic)) {
        throw UserError("{}: is not a .npy, .npz or .safetensors file: save it with numpy.save",
                        origin);
    }
    if (!member.empty()) {
        throw UserError("{}: is a .npy file, which holds one array: leave out :{}", origin, member);
    }
    return parse_npy(bytes, origin);
}

Array open_array(const std::string& name) {
    const FileName parts = split_name(name);
    const std::string origin = parts.path == "-" ? "standard input" : parts.path;
    return parse_array(read_bytes(parts.path), origin, parts.member);
}

}  // namespace spion
