#include "python/core/array.h"

#include <string>
#include <vector>

namespace spion::python {
namespace {

using dlpack::ExchangeTable;

[[noreturn]] void refuse(const std::string& sentence) {
    throw UserError(SPION_INVALID, sentence.c_str());
}

const ExchangeTable* read_table(nb::handle type) {
    nb::object capsule = nb::getattr(type, "__dlpack_c_exchange_api__", nb::none());
    if (capsule.is_none() || !PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) {
        return nullptr;
    }
    const auto* table = static_cast<const ExchangeTable*>(
        PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    while (table != nullptr && table->version.major != dlpack::kMajor) {
        table = table->previous;
    }
    return table != nullptr && table->borrow != nullptr ? table : nullptr;
}

// Types are few, and kept alive here so that none takes another's address.
const ExchangeTable* table_of(nb::handle object) {
    struct Known {
        PyObject* type;
        const ExchangeTable* table;
    };
    static std::vector<Known>& known = *new std::vector<Known>();  // guarded by the GIL
    const nb::handle type = object.type();
    for (const Known& entry : known) {
        if (entry.type == type.ptr()) {
            return entry.table;
        }
    }
    known.push_back({type.inc_ref().ptr(), read_table(type)});
    return known.back().table;
}

// What the owner of an array said, as the reason in a sentence of ours.
std::string take_python_error() {
    nb::python_error error;
    return nb::str(error.value()).c_str();
}

std::string type_name(const dlpack::DataType& dtype) {
    const char* name = "type ";
    switch (dtype.code) {
        case dlpack::kInt:
            name = "int";
            break;
        case dlpack::kUInt:
            name = "uint";
            break;
        case dlpack::kFloat:
            name = "float";
            break;
        case dlpack::kBfloat:
            name = "bfloat";
            break;
        case dlpack::kComplex:
            name = "complex";
            break;
        case dlpack::kBool:
            name = "bool";
            break;
        default:
            return "DLPack's type " + std::to_string(dtype.code);
    }
    return name + std::to_string(dtype.bits);
}

std::int32_t dtype_of(const dlpack::Tensor& tensor, const char* name) {
    const dlpack::DataType& dtype = tensor.dtype;
    if (dtype.lanes == 1) {
        if (dtype.code == dlpack::kFloat && dtype.bits == 32) {
            return SPION_FP32;
        }
        if (dtype.code == dlpack::kFloat && dtype.bits == 16) {
            return SPION_FP16;
        }
        if (dtype.code == dlpack::kBfloat && dtype.bits == 16) {
            return SPION_BF16;
        }
    }
    refuse(std::string(name) + " is of " + type_name(dtype) +
           ", and attention computes in float32, bfloat16 and float16: convert it");
}

}  // namespace

Array::Array(nb::handle object, const char* name, Access access, void* stream) : name_(name) {
    if (const ExchangeTable* table = table_of(object)) {
        if (table->borrow(object.ptr(), &tensor_) != 0) {
            refuse(std::string(name) + " cannot be read: " + take_python_error());
        }
    } else {
        take_capsule(object, access, stream);
    }
}

Array::Array(const Array& whole, const char* name, std::int64_t first, std::int64_t count)
    : name_(name), tensor_(whole.tensor_) {
    const std::int64_t* const shape = whole.tensor_.shape;
    const std::int64_t contiguous[] = {shape[1] * shape[2] * shape[3], shape[2] * shape[3],
                                       shape[3], 1};
    const std::int64_t* const given = whole.tensor_.strides;
    const std::int64_t* const strides = given != nullptr ? given : contiguous;
    constexpr int kFrom[] = {0, 2, 1, 3};
    for (int i = 0; i < 4; ++i) {
        shape_[i] = kFrom[i] == 2 ? count : shape[kFrom[i]];
        strides_[i] = strides[kFrom[i]];
    }
    tensor_.shape = shape_;
    tensor_.strides = strides_;
    tensor_.byte_offset += static_cast<std::uint64_t>(first * strides[2] * tensor_.dtype.bits / 8);
}

Array::~Array() {
    if (managed_ != nullptr && managed_->deleter != nullptr) {
        managed_->deleter(managed_);
    }
    if (versioned_ != nullptr && versioned_->deleter != nullptr) {
        versioned_->deleter(versioned_);
    }
}

void Array::take_capsule(nb::handle object, Access access, void* stream) {
    nb::object method = nb::getattr(object, "__dlpack__", nb::none());
    if (method.is_none()) {
        refuse(std::string(name_) + " is a " + nb::inst_name(object).c_str() +
               ": give an array that has __dlpack__, as those of NumPy, PyTorch and CuPy");
    }
    nb::dict keywords;
    keywords["max_version"] = nb::make_tuple(1, 3);
    const nb::object device = nb::getattr(object, "__dlpack_device__")();
    if (nb::cast<int>(device[nb::int_(0)]) == dlpack::kCuda) {
        // 1 is the protocol's name of the legacy default stream.
        keywords["stream"] =
            nb::int_(stream == nullptr ? 1 : reinterpret_cast<std::uintptr_t>(stream));
    }
    nb::object capsule;
    try {
        capsule = method(**keywords);
    } catch (nb::python_error& error) {
        refuse(std::string(name_) +
               " cannot be lent by its library: " + nb::str(error.value()).c_str());
    }
    if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
        versioned_ = static_cast<dlpack::VersionedTensor*>(
            PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
        if (versioned_->version.major != dlpack::kMajor) {
            versioned_ = nullptr;  // not ours to release
            refuse(std::string(name_) + " comes as another version of DLPack than 1: convert it");
        }
        PyCapsule_SetName(capsule.ptr(), "used_dltensor_versioned");
        tensor_ = versioned_->tensor;
        if (access == Access::kWrite && (versioned_->flags & dlpack::kReadOnly) != 0) {
            // The destructor does not run for an object whose constructor throws.
            versioned_->deleter(versioned_);
            versioned_ = nullptr;
            refuse(std::string(name_) +
                   " is read-only, and it is to be written: give a copy of it");
        }
        return;
    }
    managed_ = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    if (managed_ == nullptr) {
        throw nb::python_error();
    }
    PyCapsule_SetName(capsule.ptr(), "used_dltensor");
    tensor_ = managed_->tensor;
}

std::size_t Array::bytes() const {
    std::size_t count = tensor_.dtype.bits / 8U;
    for (std::int32_t i = 0; i < tensor_.rank; ++i) {
        count *= static_cast<std::size_t>(tensor_.shape[i]);
    }
    return count;
}

void Array::check_device(bool cuda, int ordinal) const {
    const dlpack::Device& device = tensor_.device;
    const bool good = cuda
                          ? (device.type == dlpack::kCuda || device.type == dlpack::kCudaManaged) &&
                                device.ordinal == ordinal
                          : device.type == dlpack::kCpu || device.type == dlpack::kCudaHost;
    if (!good) {
        refuse(std::string(name_) + " is on device " + std::to_string(device.type) + ":" +
               std::to_string(device.ordinal) +
               " of DLPack's numbering (1 host, 2 CUDA), and the " + "plan computes on " +
               (cuda ? "cuda:" + std::to_string(ordinal) : "cpu") +
               ": move it, or make a plan for its device");
    }
}

void Array::check_plain(int rank, dlpack::TypeCode code, int bits) const {
    if (tensor_.dtype.code != code || tensor_.dtype.bits != bits || tensor_.dtype.lanes != 1) {
        const dlpack::DataType wanted{code, static_cast<std::uint8_t>(bits), 1};
        refuse(std::string(name_) + " is of " + type_name(tensor_.dtype) + ", and it must be of " +
               type_name(wanted) + ": convert it");
    }
    if (tensor_.rank != rank) {
        refuse(std::string(name_) + " has rank " + std::to_string(tensor_.rank) +
               ", and it must be " + std::to_string(rank));
    }
    std::int64_t wanted = 1;
    for (int i = rank - 1; i >= 0 && tensor_.strides != nullptr; --i) {
        if (tensor_.shape[i] > 1 && tensor_.strides[i] != wanted) {
            refuse(std::string(name_) + " is not contiguous: make it so");
        }
        wanted *= tensor_.shape[i];
    }
}

spion_tensor Array::as_tensor(int rank) const {
    if (tensor_.rank != rank) {
        refuse(std::string(name_) + " has rank " + std::to_string(tensor_.rank) +
               (rank == 4 ? ": give an array [B, H, L, D]"
                          : ": give an array [H, T, D], as the plan was made with varlen"));
    }
    spion_tensor seen = {};
    seen.data = data();
    seen.dtype = dtype_of(tensor_, name_);
    seen.rank = rank;
    std::int64_t contiguous = 1;
    for (int i = rank - 1; i >= 0; --i) {
        seen.shape[i] = tensor_.shape[i];
        seen.strides[i] = tensor_.strides != nullptr ? tensor_.strides[i] : contiguous;
        contiguous *= tensor_.shape[i];
    }
    return seen;
}

void* current_stream(nb::handle object, int ordinal) {
    const ExchangeTable* const table = table_of(object);
    void* stream = nullptr;
    if (table != nullptr && table->current_stream != nullptr &&
        table->current_stream(dlpack::kCuda, ordinal, &stream) != 0) {
        throw nb::python_error();
    }
    return stream;
}

}  // namespace spion::python
