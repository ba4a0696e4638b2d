# The training step's kernels: one set of tests, on the host and on a GPU.
set(train_kernel_tests
    train_adamw_test.cpp
    train_classifier_test.cpp
    train_dropout_test.cpp
    train_embedding_test.cpp
    train_fixture.cpp
    train_gelu_test.cpp
    train_norm_test.cpp
    train_pool_test.cpp
    train_reference.cpp
    train_sums_test.cpp)
spion_test(train_kernels_test ONE_PROCESS SOURCES ${train_kernel_tests} LIBRARIES spion_train)
spion_test(train_kernels_gpu_test ONE_PROCESS LABEL gpu SOURCES ${train_kernel_tests}
           LIBRARIES spion_train)
target_compile_definitions(train_kernels_gpu_test PRIVATE SPION_TEST_ON_GPU)
if(SPION_CUDA_BACKEND)
    spion_test(train_nvrtc_test ONE_PROCESS SOURCES train_nvrtc_test.cpp LIBRARIES spion_train)
endif()
spion_test(train_step_shape_test SOURCES ../train/kernels_test.cpp LIBRARIES spion_train)
