#include "runtime/host/jit.h"

#include <llvm/ExecutionEngine/Orc/ExecutionUtils.h>
#include <llvm/ExecutionEngine/Orc/LLJIT.h>
#include <llvm/Support/Error.h>
#include <llvm/Support/MemoryBuffer.h>
#include <llvm/Support/TargetSelect.h>

#include <atomic>

#include "ir/error.h"

namespace spion {
namespace {

template <typename T>
T checked(llvm::Expected<T> value, const std::string& what) {
    if (!value) {
        throw InternalError("ORC cannot load {}: {}", what, llvm::toString(value.takeError()));
    }
    return static_cast<T&&>(*value);
}

void check_success(llvm::Error error, const std::string& what) {
    if (error) {
        throw InternalError("ORC cannot load {}: {}", what, llvm::toString(std::move(error)));
    }
}

class OrcKernel : public HostKernel {
  public:
    OrcKernel(llvm::orc::LLJIT& jit, llvm::orc::JITDylib& library, std::string entry)
        : jit_(jit), library_(library), entry_(std::move(entry)) {}
    ~OrcKernel() override {
        llvm::consumeError(jit_.getExecutionSession().removeJITDylib(library_));
    }
    OrcKernel(const OrcKernel&) = delete;
    OrcKernel& operator=(const OrcKernel&) = delete;

    void load(const std::string& object) {
        // Optimised loops may become calls of these three; bodies use nothing else.
        auto symbols = llvm::orc::DynamicLibrarySearchGenerator::GetForCurrentProcess(
            jit_.getDataLayout().getGlobalPrefix(), [](const llvm::orc::SymbolStringPtr& name) {
                return *name == "memcpy" || *name == "memmove" || *name == "memset";
            });
        library_.addGenerator(checked(std::move(symbols), entry_));
        check_success(
            jit_.addObjectFile(library_, llvm::MemoryBuffer::getMemBufferCopy(object, entry_)),
            entry_);
        const llvm::orc::ExecutorAddr address = checked(jit_.lookup(library_, entry_), entry_);
        function_ = address.toPtr<HostFunction>();
    }

    const std::string& entry() const override { return entry_; }
    HostFunction function() const override { return function_; }

  private:
    llvm::orc::LLJIT& jit_;
    llvm::orc::JITDylib& library_;
    std::string entry_;
    HostFunction function_ = nullptr;
};

}  // namespace

struct Jit::State {
    std::unique_ptr<llvm::orc::LLJIT> jit;
    std::atomic<int> libraries{0};
};

Jit::Jit() : state_(std::make_unique<State>()) {
    llvm::InitializeNativeTarget();
    llvm::InitializeNativeTargetAsmPrinter();
    state_->jit = checked(
        llvm::orc::LLJITBuilder().setPlatformSetUp(llvm::orc::setUpInactivePlatform).create(),
        "the host back end");
    // Errors come back from lookup; ORC would also print them.
    state_->jit->getExecutionSession().setErrorReporter(llvm::consumeError);
}

Jit::~Jit() = default;

std::unique_ptr<HostKernel> Jit::load(const std::string& entry, const std::string& object) {
    const std::string name = fmt::format("{}.{}", entry, state_->libraries++);
    llvm::orc::JITDylib& library =
        checked<llvm::orc::JITDylib&>(state_->jit->createJITDylib(name), entry);
    auto kernel = std::make_unique<OrcKernel>(*state_->jit, library, entry);
    kernel->load(object);
    return kernel;
}

}  // namespace spion
