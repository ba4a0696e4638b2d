#include "runtime/host/llvm_compiler.h"

#include <llvm/ADT/SmallString.h>
#include <llvm/AsmParser/Parser.h>
#include <llvm/Bitcode/BitcodeReader.h>
#include <llvm/Config/llvm-config.h>
#include <llvm/IR/DiagnosticHandler.h>
#include <llvm/IR/DiagnosticInfo.h>
#include <llvm/IR/DiagnosticPrinter.h>
#include <llvm/IR/LLVMContext.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/Module.h>
#include <llvm/IR/Verifier.h>
#include <llvm/Linker/Linker.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Passes/PassBuilder.h>
#include <llvm/Support/ErrorHandling.h>
#include <llvm/Support/SourceMgr.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Target/TargetMachine.h>
#include <llvm/Target/TargetOptions.h>
#include <llvm/Transforms/IPO/GlobalDCE.h>
#include <llvm/Transforms/IPO/Internalize.h>

#include <unistd.h>

#include <chrono>
#include <memory>
#include <mutex>

#include "ir/error.h"

namespace spion {
namespace {

#if LLVM_VERSION_MAJOR >= 18
using OptLevel = llvm::CodeGenOptLevel;
constexpr auto kAssemblyFile = llvm::CodeGenFileType::AssemblyFile;
constexpr auto kObjectFile = llvm::CodeGenFileType::ObjectFile;
#else
using OptLevel = llvm::CodeGenOpt::Level;
constexpr auto kAssemblyFile = llvm::CGFT_AssemblyFile;
constexpr auto kObjectFile = llvm::CGFT_ObjectFile;
#endif

// Collects what LLVM says instead of letting it print or exit.
class Diagnostics : public llvm::DiagnosticHandler {
  public:
    explicit Diagnostics(std::string& log) : log_(log) {}
    bool handleDiagnostics(const llvm::DiagnosticInfo& info) override {
        if (info.getSeverity() == llvm::DS_Error || info.getSeverity() == llvm::DS_Warning) {
            llvm::raw_string_ostream stream(log_);
            llvm::DiagnosticPrinterRawOStream printer(stream);
            info.print(printer);
            stream << '\n';
        }
        return true;
    }

  private:
    std::string& log_;
};

struct Level {
    llvm::OptimizationLevel passes;
    OptLevel code;
};

Level optimisation_level(const CompileRequest& request) {
    if (request.options.empty()) {
        return {llvm::OptimizationLevel::O3, static_cast<OptLevel>(3)};
    }
    const std::string& option = request.options.front();
    if (request.options.size() > 1 || option.size() != 2 || option[0] != 'O' || option[1] < '0' ||
        option[1] > '3') {
        throw InternalError("the LLVM pipeline takes one option of O0, O1, O2 and O3, not '{}'",
                            fmt::join(request.options, " "));
    }
    const llvm::OptimizationLevel levels[] = {
        llvm::OptimizationLevel::O0, llvm::OptimizationLevel::O1, llvm::OptimizationLevel::O2,
        llvm::OptimizationLevel::O3};
    const int level = option[1] - '0';
    return {levels[level], static_cast<OptLevel>(level)};
}

// The widest vectors to use, in bits.
const char* vector_width(const CompileRequest& request) {
    return request.features.find("+avx512f") != std::string::npos ? "512" : "256";
}

// One compilation: a context, the module in it and the machine it is for.
class Compilation {
  public:
    explicit Compilation(const CompileRequest& request)
        : request_(request), level_(optimisation_level(request)) {
        context_.setDiagnosticHandler(std::make_unique<Diagnostics>(log_));
        parse_text();
        for (const SourceFile& file : request.includes) {
            link_body(file);
        }
        make_machine();
        set_cpu();
        keep_only_entry();
        optimise();
    }

    std::string ir() const {
        std::string text;
        llvm::raw_string_ostream stream(text);
        module_->print(stream, nullptr);
        return text;
    }

    template <typename FileType>
    std::string emit(FileType type) {
        llvm::SmallString<0> bytes;
        llvm::raw_svector_ostream stream(bytes);
        llvm::legacy::PassManager passes;
        if (machine_->addPassesToEmitFile(passes, stream, nullptr, type)) {
            throw InternalError("LLVM cannot emit code for CPU '{}'", request_.arch);
        }
        passes.run(*module_);
        return std::string(bytes.data(), bytes.size());
    }

    std::string& log() { return log_; }

  private:
    void parse_text() {
        llvm::SMDiagnostic error;
        module_ = llvm::parseAssemblyString(request_.text, error, context_);
        if (module_ == nullptr) {
            throw InternalError("LLVM rejects the text of '{}', line {}: {}", request_.entry,
                                error.getLineNo(), error.getMessage().str());
        }
    }

    // A constant that the body reads as another type than the text gives it would be misread in
    // silence: the linker looks at names only.
    void check_constant_types(const llvm::Module& body, const std::string& name) const {
        for (const llvm::GlobalVariable& global : body.globals()) {
            const llvm::GlobalVariable* given = module_->getNamedGlobal(global.getName());
            if (given != nullptr && given->getValueType() != global.getValueType()) {
                throw InternalError("constant {} has another type in {} than in the text of '{}'",
                                    global.getName().str(), name, request_.entry);
            }
        }
    }

    void link_body(const SourceFile& file) {
        auto body = llvm::parseBitcodeFile(llvm::MemoryBufferRef(file.text, file.name), context_);
        if (!body) {
            throw InternalError("LLVM rejects the bitcode of {}: {}", file.name,
                                llvm::toString(body.takeError()));
        }
        check_constant_types(**body, file.name);
        module_->setTargetTriple((*body)->getTargetTriple());
        module_->setDataLayout((*body)->getDataLayout());
        if (llvm::Linker::linkModules(*module_, std::move(*body))) {
            throw InternalError("LLVM cannot link {} into '{}': {}", file.name, request_.entry,
                                log_);
        }
    }

    void make_machine() {
        std::string error;
        const llvm::Target* target =
            llvm::TargetRegistry::lookupTarget(module_->getTargetTriple(), error);
        if (target == nullptr) {
            throw InternalError("LLVM has no target for '{}': {}", request_.entry, error);
        }
        machine_.reset(target->createTargetMachine(
            module_->getTargetTriple(), request_.arch, request_.features, llvm::TargetOptions(),
            llvm::Reloc::PIC_, llvm::CodeModel::Small, level_.code));
        module_->setDataLayout(machine_->createDataLayout());
    }

    // clang compiled the bodies for its baseline; the request says which CPU they run on.
    void set_cpu() {
        for (llvm::Function& function : *module_) {
            if (function.isDeclaration()) {
                continue;
            }
            for (const char* name : {"tune-cpu", "min-legal-vector-width"}) {
                function.removeFnAttr(name);
            }
            function.addFnAttr("target-cpu", request_.arch);
            function.addFnAttr("target-features", request_.features);
            function.addFnAttr("prefer-vector-width", vector_width(request_));
        }
    }

    void keep_only_entry() {
        llvm::Function* entry = module_->getFunction(request_.entry);
        if (entry == nullptr || entry->isDeclaration()) {
            throw InternalError("the bodies of '{}' define no function of that name",
                                request_.entry);
        }
        entry->setVisibility(llvm::GlobalValue::DefaultVisibility);
        llvm::internalizeModule(*module_, [&](const llvm::GlobalValue& value) {
            return value.getName() == request_.entry;
        });
        run_passes([](llvm::PassBuilder&) {
            llvm::ModulePassManager passes;
            passes.addPass(llvm::GlobalDCEPass());
            return passes;
        });
        for (const llvm::GlobalVariable& global : module_->globals()) {
            if (global.isDeclaration()) {
                throw InternalError("'{}' needs the constant {}, which its text does not define",
                                    request_.entry, global.getName().str());
            }
        }
    }

    void optimise() {
        std::string error;
        llvm::raw_string_ostream stream(error);
        if (llvm::verifyModule(*module_, &stream)) {
            throw InternalError("LLVM finds '{}' malformed: {}", request_.entry, stream.str());
        }
        run_passes([&](llvm::PassBuilder& builder) {
            return level_.passes == llvm::OptimizationLevel::O0
                       ? builder.buildO0DefaultPipeline(level_.passes)
                       : builder.buildPerModuleDefaultPipeline(level_.passes);
        });
        for (const llvm::Function& function : *module_) {
            const llvm::StringRef name = function.getName();
            if (function.isDeclaration() && !function.isIntrinsic() && name != "memcpy" &&
                name != "memmove" && name != "memset") {
                throw InternalError("'{}' calls {}, but bodies of kernels call no library",
                                    request_.entry, name.str());
            }
        }
    }

    template <typename MakePasses>
    void run_passes(MakePasses make_passes) {
        llvm::LoopAnalysisManager loops;
        llvm::FunctionAnalysisManager functions;
        llvm::CGSCCAnalysisManager components;
        llvm::ModuleAnalysisManager modules;
        llvm::PassBuilder builder(machine_.get());
        builder.registerModuleAnalyses(modules);
        builder.registerCGSCCAnalyses(components);
        builder.registerFunctionAnalyses(functions);
        builder.registerLoopAnalyses(loops);
        builder.crossRegisterProxies(loops, functions, components, modules);
        make_passes(builder).run(*module_, modules);
    }

    const CompileRequest& request_;
    Level level_;
    std::string log_;
    llvm::LLVMContext context_;
    std::unique_ptr<llvm::Module> module_;
    std::unique_ptr<llvm::TargetMachine> machine_;
};

// LLVM has no way to hand a failed allocation back, and would abort. This says what a user can do
// and ends the process as a refused request does. It must not allocate.
[[noreturn]] void end_without_memory(void*, const char*, bool) {
    constexpr char kSentence[] =
        "spion: out of memory on the host while compiling a kernel; raise the limit on memory "
        "(ulimit -v) or lower --threads\n";
    constexpr int kRefused = 2;
    [[maybe_unused]] const ssize_t written =
        ::write(STDERR_FILENO, kSentence, sizeof(kSentence) - 1);
    ::_exit(kRefused);
}

void initialise_llvm() {
    static std::once_flag once;
    std::call_once(once, [] {
        llvm::install_bad_alloc_error_handler(end_without_memory);
        llvm::InitializeNativeTarget();
        llvm::InitializeNativeTargetAsmPrinter();
        llvm::InitializeNativeTargetAsmParser();
    });
}

}  // namespace

std::string llvm_version() {
    return LLVM_VERSION_STRING;
}

KernelBinary compile_with_llvm(const CompileRequest& request) {
    initialise_llvm();
    const auto start = std::chrono::steady_clock::now();
    Compilation compilation(request);
    KernelBinary binary{.code = compilation.emit(kObjectFile), .log = compilation.log()};
    const std::chrono::duration<double, std::milli> spent =
        std::chrono::steady_clock::now() - start;
    binary.compile_ms = spent.count();
    return binary;
}

std::string optimised_ir(const CompileRequest& request) {
    initialise_llvm();
    return Compilation(request).ir();
}

std::string assembly(const CompileRequest& request) {
    initialise_llvm();
    return Compilation(request).emit(kAssemblyFile);
}

// What Compilation does: link, set the CPU, keep the entry, optimise, emit. opt joins scalars into
// vectors unless told otherwise, the default pipeline does not.
std::string rebuild_with_llvm(const CompileRequest& request) {
    std::string bodies;
    for (const SourceFile& file : request.includes) {
        bodies += " " + file.name;
    }
    const std::string level = request.options.empty() ? "O3" : request.options.front();
    return fmt::format(
        "llvm-link-{0} -S kernel.ll{1} -o kernel.linked.ll && sed -E '"
        "s/\"(tune-cpu|min-legal-vector-width)\"=\"[^\"]*\" ?//g; "
        "s/\"target-cpu\"=\"[^\"]*\"/\"prefer-vector-width\"=\"{2}\" \"target-cpu\"=\"{3}\"/; "
        "s/\"target-features\"=\"[^\"]*\"/\"target-features\"=\"{4}\"/' "
        "kernel.linked.ll >kernel.host.ll && "
        "opt-{0} -vectorize-slp=false -passes='internalize,globaldce,default<{5}>' "
        "-internalize-public-api-list={6} kernel.host.ll -o kernel.host.bc && "
        "llc-{0} -{5} -relocation-model=pic -filetype=obj kernel.host.bc -o kernel.rebuilt.o",
        LLVM_VERSION_MAJOR, bodies, vector_width(request), request.arch, request.features, level,
        request.entry);
}

}  // namespace spion
