#include "ir/dtype.h"

#include "ir/error.h"

namespace spion {

int storage_bytes(DType dtype) {
    switch (dtype) {
        case DType::kFp32:
        case DType::kTf32:
            return 4;
        case DType::kBf16:
        case DType::kFp16:
            return 2;
    }
    throw InternalError("dtype {} has no storage size", static_cast<int>(dtype));
}

std::string_view to_string(DType dtype) {
    switch (dtype) {
        case DType::kFp32:
            return "fp32";
        case DType::kTf32:
            return "tf32";
        case DType::kBf16:
            return "bf16";
        case DType::kFp16:
            return "fp16";
    }
    throw InternalError("dtype {} has no name", static_cast<int>(dtype));
}

DType parse_dtype(std::string_view name) {
    for (DType dtype : {DType::kFp32, DType::kTf32, DType::kBf16, DType::kFp16}) {
        if (name == to_string(dtype)) {
            return dtype;
        }
    }
    throw UserError("dtype '{}' is not known: use fp32, tf32, bf16 or fp16", name);
}

}  // namespace spion
