// Runs the bank engine on one case read from files and checks every dot product.
//
// +words +counts +vector +expected: files for $readmemh; +rows +lockstep: numbers. Prints
// `cycles C wrong W`: clock edges from `start` to the last result, and results that are not what was expected.
module bank_bench;
  parameter M = 4;
  parameter N = 16;
  localparam WIDTH = 16;
  localparam INDEX_BITS = 6;
  localparam WAVE_BITS = 4;
  localparam SUM_BITS = 48;
  localparam DEPTH_BITS = 12;
  localparam WORD_BITS = 1 + WAVE_BITS + N * (INDEX_BITS + WIDTH);
  localparam VECTOR_WORDS = 1 << (INDEX_BITS + WAVE_BITS);
  localparam MOST_ROWS = 1 << 14;

  reg [WORD_BITS-1:0] words[0:(M<<DEPTH_BITS)-1];
  reg [31:0] pe_words[0:M-1];
  reg [N*WIDTH-1:0] vector[0:VECTOR_WORDS-1];
  reg [SUM_BITS-1:0] expected[0:MOST_ROWS-1];
  reg [1023:0] file;

  reg clk = 0;
  always #5 clk = !clk;

  reg start = 0, vector_write = 0;
  reg lockstep = 0;
  reg [M*(DEPTH_BITS+1)-1:0] counts = 0;
  reg [M-1:0] weight_write = 0;
  reg [DEPTH_BITS-1:0] weight_address = 0;
  reg [WORD_BITS-1:0] weight_data = 0;
  reg [INDEX_BITS+WAVE_BITS:0] vector_address = 0;
  reg [N*WIDTH-1:0] vector_data = 0;
  wire [M-1:0] result_valid;
  wire [M*SUM_BITS-1:0] results;

  bank_engine #(
      .M(M),
      .N(N),
      .WIDTH(WIDTH),
      .INDEX_BITS(INDEX_BITS),
      .WAVE_BITS(WAVE_BITS),
      .SUM_BITS(SUM_BITS),
      .DEPTH_BITS(DEPTH_BITS)
  ) engine (
      .clk(clk),
      .start(start),
      .lockstep(lockstep),
      .counts(counts),
      .weight_write(weight_write),
      .weight_address(weight_address),
      .weight_data(weight_data),
      .half(1'b0),
      .vector_write({N{vector_write}}),
      .vector_address({N{vector_address}}),
      .vector_data(vector_data),
      .result_valid(result_valid),
      .results(results)
  );

  integer rows, flag, pe, at, base, total, cycles, done, wrong, row;
  integer finished_rows[0:M-1];

  initial begin
    if (!$value$plusargs("rows=%d", rows)) $finish;
    if (!$value$plusargs("lockstep=%d", flag)) flag = 0;
    lockstep = flag != 0;
    if ($value$plusargs("counts=%s", file)) $readmemh(file, pe_words);
    total = 0;
    for (pe = 0; pe < M; pe = pe + 1) begin
      total = total + pe_words[pe];
      counts[pe*(DEPTH_BITS+1)+:DEPTH_BITS+1] = pe_words[pe][DEPTH_BITS:0];
      finished_rows[pe] = 0;
    end
    if ($value$plusargs("words=%s", file)) $readmemh(file, words, 0, total - 1);
    if ($value$plusargs("vector=%s", file)) $readmemh(file, vector);
    if ($value$plusargs("expected=%s", file)) $readmemh(file, expected, 0, rows - 1);

    // Inputs change in the middle of a cycle: no race with the clock edge in any simulator.
    // Memories are filled through the ports that a host would use.
    for (at = 0; at < VECTOR_WORDS; at = at + 1) begin
      @(negedge clk);
      vector_write = 1;
      vector_address = at[INDEX_BITS+WAVE_BITS:0];
      vector_data = vector[at];
    end
    base = 0;
    for (pe = 0; pe < M; pe = pe + 1) begin
      for (at = 0; at < pe_words[pe]; at = at + 1) begin
        @(negedge clk);
        vector_write = 0;
        weight_write = {{(M - 1) {1'b0}}, 1'b1} << pe;
        weight_address = at[DEPTH_BITS-1:0];
        weight_data = words[base+at];
      end
      base = base + pe_words[pe];
    end
    @(negedge clk);
    weight_write = 0;
    start = 1;
    cycles = 0;
    done = 0;
    wrong = 0;
    while (done < rows && cycles < 4 * total + 1000) begin
      @(negedge clk);
      start = 0;
      cycles = cycles + 1;
      for (pe = 0; pe < M; pe = pe + 1)
        if (result_valid[pe]) begin
          row = finished_rows[pe] * M + pe;
          // A result too many, or another value.
          if (row >= rows || results[pe*SUM_BITS+:SUM_BITS] !== expected[row]) wrong = wrong + 1;
          finished_rows[pe] = finished_rows[pe] + 1;
          done = done + 1;
        end
    end
    $display("cycles %0d wrong %0d", cycles, wrong + rows - done);
    $finish;
  end
endmodule
