// The functions of CPython that this library calls and that may run Python code, with the number of their arguments.
// Included by the build script, which has the linker redirect them, and by `mod.rs`, which defines where to.
guarded_calls! {
    PyBuffer_FillInfo(view, exporter, start, length, readonly, flags);
    PyBuffer_Release(view);
    PyCMethod_New(definition, this, module, class);
    PyContext_CopyCurrent();
    PyDict_Clear(dict);
    PyDict_Copy(dict);
    PyDict_DelItem(dict, key);
    #[cfg(Py_3_13)]
    PyDict_GetItemRef(dict, key, result);
    PyDict_GetItemWithError(dict, key);
    PyDict_Keys(dict);
    PyDict_New();
    PyDict_SetDefault(dict, key, default);
    #[cfg(Py_3_13)]
    PyDict_SetDefaultRef(dict, key, default, result);
    PyDict_SetItem(dict, key, value);
    PyDict_Values(dict);
    PyErr_CheckSignals();
    PyErr_Clear();
    PyErr_GivenExceptionMatches(error, class);
    PyErr_NewExceptionWithDoc(name, doc, base, dict);
    PyErr_NormalizeException(class, value, traceback);
    PyErr_PrintEx(set);
    PyErr_Restore(class, value, traceback);
    PyErr_SetNone(class);
    PyErr_SetObject(class, value);
    #[cfg(Py_3_12)]
    PyErr_SetRaisedException(error);
    PyErr_SetString(class, message);
    PyErr_WarnEx(category, message, level);
    PyErr_WriteUnraisable(object);
    PyEval_EvalCode(code, globals, locals);
    PyException_SetTraceback(error, traceback);
    PyFrozenSet_New(iterable);
    PyImport_Import(name);
    PyIter_Next(iterator);
    PyIter_Send(iterator, value, result);
    PyList_Append(list, item);
    PyList_New(length);
    PyMemoryView_FromMemory(start, length, flags);
    PyNumber_AsSsize_t(object, error);
    PyNumber_Index(object);
    PyObject_AsFileDescriptor(object);
    PyObject_Call(callable, args, keywords);
    PyObject_CallFinalizerFromDealloc(object);
    PyObject_CallNoArgs(callable);
    PyObject_CallOneArg(callable, argument);
    PyObject_ClearWeakRefs(object);
    PyObject_DelItem(object, key);
    PyObject_GenericSetAttr(object, name, value);
    PyObject_GetAttr(object, name);
    PyObject_GetAttrString(object, name);
    PyObject_GetBuffer(object, view, flags);
    PyObject_GetItem(object, key);
    PyObject_GetIter(object);
    #[cfg(Py_3_13)]
    PyObject_GetOptionalAttr(object, name, result);
    PyObject_IsInstance(object, class);
    PyObject_IsTrue(object);
    PyObject_LengthHint(object, default);
    PyObject_Repr(object);
    PyObject_RichCompare(a, b, operation);
    PyObject_RichCompareBool(a, b, operation);
    PyObject_SetAttr(object, name, value);
    PyObject_SetAttrString(object, name, value);
    PyObject_SetItem(object, key, value);
    PyObject_Size(object);
    PyObject_Str(object);
    PyObject_Vectorcall(callable, args, flags, names);
    PyObject_VectorcallDict(callable, args, flags, names);
    PyObject_VectorcallMethod(name, args, flags, names);
    PySet_Add(set, key);
    PySet_Clear(set);
    PySet_Discard(set, key);
    PySet_New(iterable);
    PyTraceBack_Print(traceback, file);
    PyTuple_GetSlice(tuple, from, to);
    PyTuple_New(length);
    PyType_FromSpec(spec);
    PyType_GenericAlloc(class, items);
    PyUnicode_AsEncodedString(string, encoding, errors);
    Py_CompileStringExFlags(text, name, start, flags, optimize);
    _PyObject_MakeTpCall(state, callable, args, count, names);
    _Py_CheckFunctionResult(state, callable, result, place);
    _Py_Dealloc(object);
}
