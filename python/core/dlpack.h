// DLPack's structs (dmlc/dlpack, version 1.3) as far as arrays are read from others here: its binary
// interface, which does not change within a major version.
#pragma once

#include <cstdint>

namespace spion::python::dlpack {

constexpr std::uint32_t kMajor = 1;

enum DeviceType : std::int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };
enum TypeCode : std::uint8_t {
    kInt = 0,
    kUInt = 1,
    kFloat = 2,
    kBfloat = 4,
    kComplex = 5,
    kBool = 6
};

struct Device {
    std::int32_t type, ordinal;
};
struct DataType {
    std::uint8_t code, bits;
    std::uint16_t lanes;
};
struct Tensor {
    void* data;
    Device device;
    std::int32_t rank;
    DataType dtype;
    std::int64_t* shape;    // [rank]
    std::int64_t* strides;  // [rank] in elements, or null: contiguous
    std::uint64_t byte_offset;
};
struct Version {
    std::uint32_t major, minor;
};

// What a capsule "dltensor" holds.
struct ManagedTensor {
    Tensor tensor;
    void* owner;
    void (*deleter)(ManagedTensor*);
};
// What a capsule "dltensor_versioned" holds.
struct VersionedTensor {
    Version version;
    void* owner;
    void (*deleter)(VersionedTensor*);
    std::uint64_t flags;
    Tensor tensor;
};
constexpr std::uint64_t kReadOnly = 1;

// The table of C functions that a class of tensors shows as __dlpack_c_exchange_api__, in a capsule
// "dlpack_exchange_api". The object given is a PyObject*.
struct ExchangeTable {
    Version version;
    ExchangeTable* previous;
    void* allocate;
    void* managed_from_object;
    void* managed_to_object;
    int (*borrow)(void* object, Tensor* out);  // may be null
    int (*current_stream)(std::int32_t device_type, std::int32_t ordinal, void** stream);
};

}  // namespace spion::python::dlpack
