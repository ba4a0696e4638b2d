#include "tools/attention_inputs.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <vector>

#include "io/array_file.h"
#include "ir/error.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

// The file of one tensor, "" where there is none: its own, or the one in `all`.
std::string file_of(const std::string& own, const std::string& all, const std::string& name) {
    if (!own.empty() || all.empty()) {
        return own;
    }
    std::error_code ignored;
    if (fs::is_directory(all, ignored)) {
        const fs::path file = fs::path(all) / (name + ".npy");
        return fs::exists(file, ignored) ? file.string() : "";
    }
    const std::vector<std::string> names = array_names(read_bytes(all), all);
    return std::find(names.begin(), names.end(), name) != names.end() ? all + ":" + name : "";
}

std::vector<float> finite_values(const Array& array) {
    const std::vector<double> values = array.values();
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (!std::isfinite(static_cast<float>(values[i]))) {
            throw UserError(
                "{}: element {} (in C order) is {}, which fp32 does not hold: give "
                "finite values",
                array.origin, i, values[i]);
        }
    }
    return {values.begin(), values.end()};
}

}  // namespace

GivenTensors read_tensors(const TensorFiles& files) {
    struct Tensor {
        const char* name;
        const std::string& file;
        std::vector<float> AttentionInputs::*values;
    };
    const Tensor tensors[] = {{"q", files.q, &AttentionInputs::q},
                              {"k", files.k, &AttentionInputs::k},
                              {"v", files.v, &AttentionInputs::v},
                              {"do", files.d_o, &AttentionInputs::d_o}};
    GivenTensors given;
    std::vector<std::int64_t> shape;
    std::string first;  // whose shape it is
    for (const Tensor& tensor : tensors) {
        const std::string file = file_of(tensor.file, files.all, tensor.name);
        if (file.empty() && tensor.values == &AttentionInputs::d_o) {
            continue;
        }
        if (file.empty()) {
            throw UserError("there is no {}: give --{} FILE, or --inputs with q, k and v in it",
                            tensor.name, tensor.name);
        }
        const Array array = open_array(file);
        if (first.empty()) {
            first = array.origin;
            shape = array.shape;
        }
        if (array.shape != shape) {
            throw UserError("{}: {} has shape {} and {} another: give tensors of one shape",
                            array.origin, tensor.name, array.shape_text(), first);
        }
        if (shape.size() < 2 || shape.size() > 4 || array.count() == 0) {
            throw UserError("{}: {} has shape {}: give (B, H, L, D), (H, L, D) or (L, D)",
                            array.origin, tensor.name, array.shape_text());
        }
        given.tensors.*tensor.values = finite_values(array);
    }
    shape.insert(shape.begin(), 4 - shape.size(), 1);
    given.batch = shape[0];
    given.heads = shape[1];
    given.length = shape[2];
    given.head_dim = shape[3];
    return given;
}

}  // namespace spion
