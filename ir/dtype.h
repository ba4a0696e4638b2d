// The element types of Q, K, V, O and their gradients, and the arithmetic used on them.
#pragma once

#include <string_view>

namespace spion {

// Accumulation, softmax and LSE are fp32 everywhere.
enum class DType {
    kFp32,  // 4-byte storage, IEEE fp32 products
    kTf32,  // 4-byte storage, products of operands rounded to tf32 (10-bit mantissa)
    kBf16,  // 2-byte storage, exact products
    kFp16,  // 2-byte storage, exact products
};

// Bytes of one stored element: 4, 4, 2, 2.
int storage_bytes(DType dtype);

// "fp32", "tf32", "bf16", "fp16".
std::string_view to_string(DType dtype);

// The inverse of to_string. Throws UserError that lists the allowed names.
DType parse_dtype(std::string_view name);

}  // namespace spion
