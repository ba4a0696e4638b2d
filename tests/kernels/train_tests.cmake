# The training step's kernels: one set of tests, on the host and on a GPU.
set(train_kernel_tests
    train_adamw_test.cpp
    train_classifier_test.cpp
    train_dropout_test.cpp
    train_embedding_test.cpp
    train_fixture.cpp
    train_gelu_test.cpp
    train_norm_test.cpp
    train_pair_test.cpp
    train_pool_test.cpp
    train_reference.cpp
    train_sums_test.cpp)
spion_test(test_kernels_train ONE_PROCESS SOURCES ${train_kernel_tests} LIBRARIES spion_train)
spion_test(test_kernels_train_gpu ONE_PROCESS LABEL gpu SOURCES ${train_kernel_tests}
           LIBRARIES spion_train)
target_compile_definitions(test_kernels_train_gpu PRIVATE SPION_TEST_ON_GPU)
if(SPION_CUDA_BACKEND)
    spion_test(test_kernels_train_nvrtc ONE_PROCESS LABEL slow SOURCES train_nvrtc_test.cpp LIBRARIES spion_train)
endif()
