// A libnvrtc.so that rejects every source, to see what becomes of the compiler's words.
#include <cstddef>
#include <cstring>

namespace {
constexpr char kLog[] = "kernel.cu(7): error: this compiler likes nothing";
constexpr int kSuccess = 0, kErrorCompilation = 6;
}  // namespace

extern "C" {
const char* nvrtcGetErrorString(int) {
    return "NVRTC_ERROR_COMPILATION";
}
int nvrtcVersion(int* major, int* minor) {
    *major = 12;
    *minor = 0;
    return kSuccess;
}
int nvrtcCreateProgram(void** program, const char*, const char*, int, const char* const*,
                       const char* const*) {
    *program = nullptr;
    return kSuccess;
}
int nvrtcDestroyProgram(void**) {
    return kSuccess;
}
int nvrtcCompileProgram(void*, int, const char* const*) {
    return kErrorCompilation;
}
int nvrtcGetProgramLogSize(void*, std::size_t* size) {
    *size = sizeof(kLog);
    return kSuccess;
}
int nvrtcGetProgramLog(void*, char* log) {
    std::memcpy(log, kLog, sizeof(kLog));
    return kSuccess;
}
int nvrtcGetCUBINSize(void*, std::size_t*) {
    return kErrorCompilation;
}
int nvrtcGetCUBIN(void*, char*) {
    return kErrorCompilation;
}
int nvrtcGetPTXSize(void*, std::size_t*) {
    return kErrorCompilation;
}
int nvrtcGetPTX(void*, char*) {
    return kErrorCompilation;
}
}
